"""`summary.md` and `epi_curve.svg|png`: what a campaign says so far, made again from its files at any time."""

from collections.abc import Sequence
from pathlib import Path

from orchestrator.domain.evaluate import RunEvaluation
from orchestrator.domain.statistics import Interval
from orchestrator.domain.wording import number as _number
from orchestrator.reports.campaign_results import CampaignResults, load_results
from orchestrator.reports.figures import epi_curve
from orchestrator.reports.result_files import write_bytes
from shared.records import Configuration

__all__ = ["CampaignResults", "load_results", "summary_markdown", "write_summary"]


def write_summary(campaign_dir: Path) -> tuple[Path, ...]:
    """Write `summary.md`, `epi_curve.svg` and `epi_curve.png` from the files in `campaign_dir`."""
    data = load_results(campaign_dir)
    contents = {campaign_dir / "summary.md": summary_markdown(data).encode()}
    for kind, image in epi_curve(data.configurations, data.results, curve_caption(data)).items():
        contents[campaign_dir / f"epi_curve.{kind}"] = image
    for path, content in contents.items():
        write_bytes(path, content)
    return tuple(contents)


def summary_markdown(data: CampaignResults) -> str:
    """Return the tables of a campaign as Markdown."""
    campaign = data.campaign
    done = sum(len(group) for group in data.runs.values())
    lines = [
        f"# {campaign.title or campaign.campaign_id}",
        "",
        f"Model {campaign.model}; hardware {campaign.hardware}; instrument {campaign.instrument.name}"
        f" at {campaign.instrument.measurement_point}; {done} of"
        f" {len(data.configurations) * campaign.repetitions} runs.",
        "",
    ]
    if campaign.instrument.emulated:
        lines += ["**The power is emulated, not measured: these joules say nothing about real hardware.**", ""]
    if campaign.protocol.accuracy_note:
        lines += [f"Accuracy: {campaign.protocol.accuracy_note}", ""]
    if campaign.protocol.rules.shortened:
        lines += ["Window lengths are shortened below the norm by configuration.", ""]
    lines += [f"**{data.recommendation.sentence}**", ""]
    lines += [
        "EPI = (J per token) / accuracy on the gross energy of the basis"
        f" `{campaign.protocol.token_basis}`; lower is better. Ratios are to the baseline of the same layout, with 95 %"
        " intervals.",
        "",
        *_table(_MAIN, [_main_row(data, item) for item in data.configurations]),
        "",
        "## Energy by window",
        "",
        *_table(_ENERGY, [_energy_row(data, item) for item in data.configurations if item.id in data.runs]),
        "",
        "## Validity",
        "",
        *_validity(data),
    ]
    if campaign.failures:
        lines += ["", "## Missing", "", *(f"- {name}: {reason}" for name, reason in sorted(campaign.failures.items()))]
    return "\n".join(lines) + "\n"


_MAIN = ("configuration", "n", "EPI", "EPI / reference", "J/token", "J/token / reference", "accuracy", "verdict")
_ENERGY = (
    "configuration", "idle W", "prefill J/token", "decode J/token", "net J/token", "J/question", "peak W", "lag s",
)  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    align = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in [head, align, *rows]]


def _main_row(data: CampaignResults, item: Configuration) -> list[str]:
    result = data.results[item.id]
    verdict = str(result.comparison)
    if result.comparison == "not distinguishable" and result.smallest_resolvable is not None:
        verdict += f" (could show {result.smallest_resolvable:.1%})"
    elif result.comparison == "unknown":
        verdict = result.reason or "unknown"
    return [
        item.id,
        str(result.repetitions),
        _number(result.epi),
        _ratio(result.epi_ratio, result.epi_ratio_interval),
        _number(result.joules_per_token),
        _ratio(result.joules_ratio, result.joules_ratio_interval),
        "-" if result.accuracy is None else f"{result.accuracy:.3f}",
        verdict,
    ]


def _energy_row(data: CampaignResults, item: Configuration) -> list[str]:
    runs = data.runs[item.id]

    def middle(values: Sequence[float | None]) -> str:
        known = sorted(value for value in values if value is not None)
        if not known:
            return "-"
        return _number((known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2)

    def per_token(run: RunEvaluation, basis: str) -> float | None:
        return next((value.joules_per_token for name, value in run.epi_by_basis.items() if name == basis), None)

    return [
        item.id,
        middle([None if run.idle_watts is None else sum(run.idle_watts.values()) for run in runs]),
        middle([per_token(run, "prefill_prompt") for run in runs]),
        middle([per_token(run, "decode_generated") for run in runs]),
        middle([run.net_joules_per_token for run in runs]),
        middle([run.joules_per_question for run in runs]),
        middle([None if run.headline is None else run.headline.peak_watts_cluster for run in runs]),
        middle([run.lag.lag_s if run.lag.accepted else None for run in runs]),
    ]


def _validity(data: CampaignResults) -> list[str]:
    counts = {"PASS": 0, "FLAG": 0, "FAIL": 0}
    reasons: dict[str, list[str]] = {}
    for group in data.runs.values():
        for run in group:
            counts[run.validity.verdict] += 1
            for finding in run.validity.findings:
                key = f"{finding.verdict} {finding.rule} ({finding.where}): {finding.reason}"
                reasons.setdefault(key, []).append(run.run_id)
    lines = [f"Runs: {counts['PASS']} PASS, {counts['FLAG']} FLAG, {counts['FAIL']} FAIL."]
    for key, names in sorted(reasons.items()):
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"- {key}: {shown}")
    return lines


def _ratio(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + ("" if interval is None else f" [{interval.low:.3f}, {interval.high:.3f}]")


def curve_caption(data: CampaignResults) -> str:
    emulated = "EMULATED power, " if data.campaign.instrument.emulated else ""
    questions = max((result.n_questions for result in data.results.values()), default=0)
    return (
        f"{data.campaign.model}: {emulated}{data.campaign.repetitions} repetition(s), {questions} questions;"
        " bars: 95 % intervals, paired, against the baseline of the same layout"
    )
