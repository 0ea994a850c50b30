"""What the rules say of a campaign and its runs, in lines that a person reads: alike findings once, each run once."""

import re
from collections import Counter
from collections.abc import Sequence

from orchestrator.domain.run.disturbances import foreign_load
from orchestrator.domain.run.findings import Verdict
from orchestrator.results.read_model import CampaignResults

_NUMBER = re.compile(r"[\d.]+")
_NAMED = 3
_LEAST_SHARE = 0.005


def validity_lines(data: CampaignResults) -> list[str]:
    """Return counts and reasons of the runs' and the campaign's validity, one finding a line."""
    counts = {"PASS": 0, "FLAG": 0, "FAIL": 0}
    reasons: dict[str, list[tuple[str, str]]] = {}  # alike but for their numbers
    for group in data.runs.values():
        for run in group:
            counts[run.validity.verdict] += 1
            for finding in run.validity.findings:
                if finding.rule != "foreign_load":
                    text = f"{finding.verdict} {finding.rule} ({finding.where}): {finding.reason}"
                    reasons.setdefault(_NUMBER.sub("#", text), []).append((text, run.run_id))
    lines = [f"Campaign: {data.validity.verdict}. Runs: {', '.join(f'{n} {name}' for name, n in counts.items())}."]
    campaign: dict[str, list[str]] = {}
    for finding in data.validity.findings:
        campaign.setdefault(f"{finding.verdict} {finding.rule}: {finding.reason}", []).append(finding.where)
    lines += [f"- {key}: {_few(names)}" for key, names in sorted(campaign.items())]
    lines += [f"- {alike[0][0]}: {_few([name for _, name in alike])}" for _, alike in sorted(reasons.items())]
    return lines + _foreign_load_lines(data)


def _foreign_load_lines(data: CampaignResults) -> list[str]:
    """Return one line a verdict and window label: the worst share, who it was mostly, and which runs."""
    worst: dict[tuple[Verdict, str], float] = {}
    programs: dict[tuple[Verdict, str], Counter[str]] = {}
    runs: dict[tuple[Verdict, str], list[str]] = {}
    for name, group in data.runs.items():
        inputs = {run.run_id: run for run in data.inputs[name]}
        for run in group:
            said = {one.where: one.verdict for one in run.validity.findings if one.rule == "foreign_load"}
            for window in inputs[run.run_id].window_loads:
                for node, load in foreign_load(window).items():
                    verdict = _verdict_of(said, node, window.label)
                    if verdict is not None:
                        key = verdict, window.label
                        worst[key] = max(worst.get(key, 0.0), load.cpu_share)
                        runs.setdefault(key, []).append(run.run_id)
                        named = {name.partition(", pid ")[0] for name, share in load.programs if share >= _LEAST_SHARE}
                        programs.setdefault(key, Counter()).update(named)
    return [
        f"- {verdict} foreign_load ({label}): other programs used up to {worst[verdict, label]:.2f} of a core,"
        f" mostly {', '.join(name for name, _ in programs[verdict, label].most_common(_NAMED))}:"
        f" {_few(runs[verdict, label])}"
        for verdict, label in worst
    ]


def _verdict_of(said: dict[str, Verdict], node: str, label: str) -> Verdict | None:
    for where, verdict in said.items():
        nodes, _, of = where.rpartition(", ")
        if of == label and node in nodes.split():
            return verdict
    return None


def _few(names: Sequence[str]) -> str:
    """Return the first names, each once."""
    different = list(dict.fromkeys(names))
    return ", ".join(different[:_NAMED]) + (f" and {len(different) - _NAMED} more" if len(different) > _NAMED else "")
