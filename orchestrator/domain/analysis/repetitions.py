"""A repetition far from the others of its configuration: barred with its reason, never averaged in, never thrown away.

Repetitions of one configuration load the same file and generate the same tokens, so that their joules a token differ
only by what the lab does. A limit in the protocol bounds the ratio to their median; where the campaign's other
configurations tell how far repetitions usually differ, that bounds it too. Medians throughout: what is looked for must
not widen the limit that finds it. Of two repetitions nobody can say which is right: both are barred, a third decides.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import exp, log
from statistics import median

from orchestrator.domain.campaign.protocol import WindowRules
from orchestrator.domain.run.evaluate import RunEvaluation
from orchestrator.domain.run.findings import Finding, judge
from orchestrator.domain.run.records import RunInput
from shared.kernel.records import ConfigurationId

_KNOWS_SINCE = 2
"""The rules_version that holds repetitions against each other."""
_SIGMAS = 10.0
_LEAST_RATIO = 1.05
"""Nearer than that nothing is barred, however still the lab is."""
_LEAST_PAIRS = 10
_MEDIAN_OF_PAIR = 0.6745 * 2**0.5
"""Median of |x - y| for two normal variables of unit spread."""


def judge_repetitions(
    inputs: Mapping[ConfigurationId, Sequence[RunInput]], runs: Mapping[ConfigurationId, Sequence[RunEvaluation]]
) -> dict[ConfigurationId, tuple[RunEvaluation, ...]]:
    """Return the runs, those that are far from the others of their configuration with a FAIL more.

    Runs that earlier rules judged are returned as they are, and so is everything that has already failed.
    """
    ratios = {name: _log_joules(inputs[name], group) for name, group in runs.items()}
    judged: dict[ConfigurationId, tuple[RunEvaluation, ...]] = {}
    for name, group in runs.items():
        own = ratios[name]
        others = [logs.values() for other, logs in ratios.items() if other != name]
        pairs = [abs(a - b) for logs in others for a, b in combinations(logs, 2)]
        usual = exp(median(pairs) / _MEDIAN_OF_PAIR) if len(pairs) >= _LEAST_PAIRS else None
        by_input = dict(zip((run.run_id for run in inputs[name]), inputs[name], strict=True))
        judged[name] = tuple(_judged(run, own, by_input[run.run_id].protocol.rules, usual) for run in group)
    return judged


def _log_joules(inputs: Sequence[RunInput], group: Sequence[RunEvaluation]) -> dict[str, float]:
    """Return run id -> ln J/token of what may be held against each other."""
    current = {run.run_id for run in inputs if run.rules_version >= _KNOWS_SINCE}
    return {
        run.run_id: log(joules)
        for run in group
        if run.run_id in current and run.validity.verdict != "FAIL" and (joules := run.epi.joules_per_token)
    }


def _judged(
    run: RunEvaluation, logs: Mapping[str, float], rules: WindowRules, usual_ratio: float | None
) -> RunEvaluation:
    if run.run_id not in logs or len(logs) < 2:
        return run
    limit, by = rules.max_repetition_ratio, "the protocol's limit"
    if usual_ratio is not None and (by_spread := max(usual_ratio**_SIGMAS, _LEAST_RATIO)) < limit:
        limit, by = by_spread, f"{_SIGMAS:.0f} times the spread of the other configurations"
    others = [value for other, value in logs.items() if other != run.run_id]
    # the median of all is the right one's neighbour where one of three or more is wrong; of two it lies between them
    centre = median(logs.values()) if len(logs) > 2 else others[0]
    ratio = exp(logs[run.run_id] - centre)
    if max(ratio, 1 / ratio) <= limit:
        return run
    which = "the other repetition: nobody can say which is right" if len(logs) == 2 else "the median of the repetitions"
    reason = (
        f"{ratio:.3g} times the J/token of {which} (limit {limit:.3g}, {by}); "
        "look at what the node did then, and measure it again"
    )
    found = Finding(rule="repetition", verdict="FAIL", reason=reason, where="run")
    return run.model_copy(update={"validity": judge([*run.validity.findings, found])})
