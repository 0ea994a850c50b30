"""50 campaigns, each with one to four random faults at random moments: every one ends by itself or says why not.

`EPI_CHAOS_SEEDS=10:20` runs some of them. Choices, accuracies and hashes equal the undisturbed campaign's; joules lie
where repetitions of it lie, or the run is barred by a rule; what went wrong is named while it lasts, where the lab may
be looked at (never inside windows). Needs root, as the network tests do.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from orchestrator.domain.campaign.spec import CampaignSpec, WorkloadSpec
from orchestrator.domain.campaign.timeouts import TimeoutsSpec
from orchestrator.results.read_model import load_results
from shared.kernel.errors import EpiError
from tests.crash.answers import outcome_of
from tests.crash.chaos import ChaosLab, Happened, chaos_lab, faults_of, let_happen
from tests.support.lab import api_of, short_spec, start_campaign, wait_for_end

pytestmark = [pytest.mark.slow, pytest.mark.mounts, pytest.mark.timeout(4 * 3600)]

CONFIGURATIONS = ("baseline", "drop4_all")
REPETITIONS = 2
CALM_REPETITIONS = 5
_FIRST, _LAST = (int(part) for part in os.environ.get("EPI_CHAOS_SEEDS", "0:50").split(":"))
SEEDS = range(_FIRST, _LAST)
SPAN_S = 35.0
"""Within this time of a campaign's start its faults begin; an undisturbed one takes about as long."""
LONGEST_S = 900.0
TIMEOUTS = TimeoutsSpec(
    steps={"deploy": 40, "start_engine": 60, "marker": 30, "prefill": 60, "decode": 60, "score": 60}, recover_s=120
)
_BEYOND = 1.5
"""How far beyond the undisturbed repetitions a run's joules may lie on a machine that does other things, either way:
what the campaign's own rule (`max_repetition_ratio`) allows."""


def chaos_spec(name: str, repetitions: int = REPETITIONS) -> CampaignSpec:
    spec = short_spec(name, ",".join(CONFIGURATIONS), repetitions=repetitions)
    assert spec.tasks is not None
    # Windows long enough to be judged by their energy on a quiet machine too: shorter ones are barred.
    prefill, decode = WorkloadSpec(tokens_each=384, prompts=8), WorkloadSpec(tokens_each=96, prompts=8)
    rules = {"stall_s": 0.3, "max_repetition_ratio": _BEYOND, "min_duration_s": 0.1, "min_samples": 2}
    changed = {
        "max_attempts": 6, "timeouts": TIMEOUTS, "rules": spec.rules.model_copy(update=rules),
        "windows": spec.windows.model_copy(update={"prefill": prefill, "decode": decode}),
        "tasks": spec.tasks.model_copy(update={"questions": 16}),
    }  # fmt: skip
    return spec.model_copy(update=changed)


@pytest.fixture(scope="module")
def chaos() -> Iterator[ChaosLab]:
    with chaos_lab() as running:
        start_campaign(running.lab, chaos_spec("calm", CALM_REPETITIONS))
        assert wait_for_end(running.lab, "calm", LONGEST_S)["state"] == "finished"
        yield running


def test_every_campaign_ends_and_says_the_truth(chaos: ChaosLab) -> None:
    calm, usual = outcome_of(chaos.lab, "calm", CONFIGURATIONS), joules_of(chaos, "calm")
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    for seed in SEEDS:
        said = one_campaign(chaos, seed, calm, usual, seen)
        wrong += [f"seed {seed}: {one}" for one in said]
    print(f"{len(SEEDS)} campaigns: {dict(sorted(seen.items()))}")
    assert wrong == []


def one_campaign(
    chaos: ChaosLab, seed: int, calm: dict[str, Any], usual: dict[str, list[float]], seen: Counter[str]
) -> list[str]:
    """Run one campaign with the faults of a seed; return what was wrong."""
    name, faults, wrong = f"chaos-{seed}", faults_of(seed, SPAN_S), []
    begun = time.monotonic()
    start_campaign(chaos.lab, chaos_spec(name))
    ended, happened = threading.Event(), []
    thread = threading.Thread(target=lambda: happened.extend(let_happen(chaos, faults, ended)))
    thread.start()
    try:
        status = wait_for_end(chaos.lab, name, LONGEST_S)
    except AssertionError as error:
        wrong.append(f"no end: {str(error)[:1000]}")
        status = {"state": "hangs", "reason": "", "runs": []}
    ended.set()
    thread.join()
    first_state, first_reason = status["state"], status["reason"]
    if status["state"] == "failed":
        wrong += [] if status["reason"] and "defect" not in status["reason"] else [f"failed: {status['reason']!r}"]
        chaos.forget_damage()
        healthy(chaos)
        api_of(chaos.lab).call("POST", f"/v1/campaigns/{name}/resume")
        status = wait_for_end(chaos.lab, name, LONGEST_S)
    if status["state"] != "finished":
        wrong.append(f"{status['state']}: {status['reason']}")
    wrong += checked(chaos, name, status, calm, usual, happened, seen) if status["state"] == "finished" else []
    wrong += [f"not told: {one.fault}: {one.untold[0]}" for one in happened if one.untold]
    chaos.forget_damage()
    wrong += healthy(chaos)
    seen["first ended as " + first_state] += 1
    seen.update(f"{one.fault.kind}{'' if one.hit else ' (nobody there)'}" for one in happened)
    seen["told"] += sum(one.told for one in happened)
    attempts = [[attempt["outcome"] for attempt in run["attempts"]] for run in status["runs"]]
    print(
        f"seed {seed}: {time.monotonic() - begun:.0f} s, {'; '.join(str(one.fault) for one in happened) or 'nothing'}"
    )
    print(
        f"  {first_state} {first_reason[:200]}; attempts {attempts}", *(f"\n  WRONG {one}" for one in wrong), flush=True
    )
    if status["state"] == "hangs":
        with suppress(EpiError):
            api_of(chaos.lab).call("POST", f"/v1/campaigns/{name}/cancel")
    return wrong


def checked(
    chaos: ChaosLab, name: str, status: dict[str, Any], calm: dict[str, Any], usual: dict[str, list[float]],
    happened: list[Happened], seen: Counter[str],
) -> list[str]:  # fmt: skip
    """Return what of a finished campaign is not as it must be."""
    wrong = []
    for run in status["runs"]:
        outcomes = [attempt["outcome"] for attempt in run["attempts"]]
        seen["attempts repeated"] += len(outcomes) - 1
        if outcomes.count("done") != 1 or outcomes[-1] != "done":
            wrong.append(f"attempts {outcomes} of {run['configuration']}/rep-{run['repetition']}")
        wrong += [f"no reason: {one}" for one in run["attempts"][:-1] if not one["reason"]]
        wrong += [f"a defect: {one['reason']}" for one in run["attempts"] if "Error: " in (one["reason"] or "")]
    if outcome_of(chaos.lab, name, CONFIGURATIONS) != calm:
        wrong.append("choices, accuracies or hashes differ from the undisturbed campaign's")
    results = load_results(chaos.lab.out / name)
    for configuration, runs in results.runs.items():
        low, high = min(usual[configuration]) / _BEYOND, max(usual[configuration]) * _BEYOND
        for run in runs:
            rules = sorted({one.rule for one in run.validity.findings if one.verdict == "FAIL"})
            windows = [(window.start_utc_ns, window.end_utc_ns) for window in run.windows if window.label == "decode"]
            hit = [one for one in happened if any(one.touches(*window) for window in windows)]
            joules = run.epi.joules_per_token or 0.0
            seen["runs"] += 1
            seen["runs with a fault in the headline window"] += bool(hit)
            seen.update(f"barred by {rule}" for rule in rules)
            if not low <= joules <= high and not rules:
                said = f"{run.run_id}: {joules:.3g} J/token, undisturbed {low:.3g}..{high:.3g}, and no rule says so"
                if hit:
                    wrong.append(f"{said}; {', '.join(str(one.fault) for one in hit)}")
                else:
                    print(f"  of the machine's own: {said}")
    return wrong


def joules_of(chaos: ChaosLab, name: str) -> dict[str, list[float]]:
    """Return configuration -> J/token of its runs."""
    runs = load_results(chaos.lab.out / name).runs
    return {
        configuration: [run.epi.joules_per_token for run in group if run.epi.joules_per_token is not None]
        for configuration, group in runs.items()
    }


def healthy(chaos: ChaosLab, within_s: float = 90.0) -> list[str]:
    """Wait until everybody in the lab is well again; return who is not."""
    deadline, said = time.monotonic() + within_s, "the orchestrator does not answer"
    while time.monotonic() < deadline:
        with suppress(EpiError):
            lab = api_of(chaos.lab).call("GET", "/v1/lab")
            ill = [
                f"{agent['name']}: {agent['error'] or agent['health']['problems']}"
                for agent in lab["agents"]
                if agent["error"] or agent["health"]["status"] != "ok"
            ]
            ill += lab["health"]["problems"]
            if not ill and lab["meter"]["connected"] and not lab["cached"]:
                return []
            said = "; ".join(ill)
        time.sleep(1)
    return [f"not well after {within_s:.0f} s: {said}"]
