"""`summary.md` and `epi_curve.svg|png`: what a campaign says so far, made again from its files at any time."""

from pathlib import Path

from orchestrator.reports import markdown
from orchestrator.reports.figures import epi_curve
from orchestrator.reports.provenance import builds_table, question_rows
from orchestrator.reports.research_questions import recommendation_of
from orchestrator.reports.tables import energy_table, results_table, servings_table
from orchestrator.reports.validity import validity_lines
from orchestrator.results.read_model import CampaignResults, load_results
from shared.files.atomic import write_files
from shared.kernel.visible import visible_line

__all__ = ["CampaignResults", "load_results", "opening", "summary_markdown", "write_summary"]


def write_summary(campaign_dir: Path) -> tuple[Path, ...]:
    """Write `summary.md`, `epi_curve.svg` and `epi_curve.png` from the files in `campaign_dir`."""
    data = load_results(campaign_dir)
    contents = {campaign_dir / "summary.md": summary_markdown(data).encode()}
    for kind, image in epi_curve(data.configurations, data.results, _caption(data)).items():
        contents[campaign_dir / f"epi_curve.{kind}"] = image
    return write_files(contents)


def opening(data: CampaignResults) -> list[str]:
    """Return the sentences that must stand before any table: what was measured, with what, and what it is not."""
    campaign = data.campaign
    done = sum(len(group) for group in data.runs.values())
    lines = [
        f"Model {campaign.model}; hardware {campaign.hardware}; instrument {campaign.instrument.name}"
        f" at {campaign.instrument.measurement_point}; {done} of"
        f" {len(data.configurations) * data.repetitions} runs."
    ]
    if campaign.interim_analyses:
        lines.append(
            f"{campaign.interim_analyses[-1].sentence().capitalize()}. Only what the interim analyses established is"
            " named a difference; the intervals beside it are those of a single analysis."
        )
    if campaign.instrument.emulated:
        lines.append("**The power is emulated, not measured: these joules say nothing about real hardware.**")
    if campaign.protocol.accuracy_note:
        lines.append(f"Accuracy: {campaign.protocol.accuracy_note}")
    if campaign.protocol.rules.shortened:
        lines.append("Window lengths are shortened below the norm by configuration.")
    lines.append(
        f"EPI = (J per token) / accuracy on the gross energy of the basis `{campaign.protocol.token_basis}`;"
        " lower is better."
    )
    if data.utilisation is not None:
        lines.append(data.utilisation.sentence())
    return lines


def summary_markdown(data: CampaignResults) -> str:
    """Return the tables of a campaign as Markdown."""
    campaign = data.campaign
    lines = [f"# {markdown.text(campaign.title or campaign.campaign_id)}", ""]
    for sentence in opening(data):
        lines += [markdown.text(sentence), ""]
    lines += [markdown.text(recommendation_of(data).sentence), ""]
    servings = servings_table(data)
    builds = builds_table(data)
    for table in filter(None, (results_table(data), servings, energy_table(data), builds)):
        lines += [f"## {table.title}", "", markdown.text(table.note), "", *table.markdown(), ""]
    lines += ["## Validity", "", *map(markdown.text, validity_lines(data))]
    if asked := question_rows(run for group in data.inputs.values() for run in group):
        lines += ["", "## Questions", "", *(markdown.text(f"- {name}: {value}") for name, value in asked)]
    if campaign.failures:
        failures = sorted(campaign.failures.items())
        lines += ["", "## Missing", "", *(markdown.text(f"- {name}: {reason}") for name, reason in failures)]
    return "\n".join(lines) + "\n"


def _caption(data: CampaignResults) -> str:
    emulated = "EMULATED power, " if data.campaign.instrument.emulated else ""
    questions = max((result.n_questions for result in data.results.values()), default=0)
    return (
        f"{visible_line(data.campaign.model)}: {emulated}{data.campaign.repetitions} repetition(s),"
        f" {questions} questions;"
        " bars: 95 % intervals, paired, against the baseline of the same layout"
    )
