"""What else happened inside windows: other programs, the host, clocks that moved, repetitions far from the others."""

import pytest

from orchestrator.domain.analysis.repetitions import judge_repetitions
from orchestrator.domain.campaign.protocol import DEMO_RULES, WindowRules
from orchestrator.domain.run.clocks import ClockOffset, NodeClock
from orchestrator.domain.run.disturbances import foreign_load
from orchestrator.domain.run.evaluate import RunEvaluation
from orchestrator.domain.run.records import RULES_VERSION, RunInput, WindowLoad
from shared.kernel.records import WindowLabel
from shared.wire.node_jobs.load import MachineLoad, ProcessId, ProcessLoad
from tests.support.domain_lab import PROTOCOL, T0, at, block, evaluate, load, questions, run_input

FOUR = dict.fromkeys(("n1", "n2", "n3", "n4"), load)
LONG = DEMO_RULES.model_copy(update={"shortened": False, "max_foreign_cpu_share": 0.05, "max_repetition_ratio": 1.25})


def used(
    *foreign: tuple[str, int, float], own: tuple[int, ...] = (1,), unseen_s: float = 0.0, steal_s: float | None = 0.0,
    machine: str = "m1",
) -> MachineLoad:  # fmt: skip
    """Two seconds of a machine with four cores."""
    return MachineLoad(
        start_utc_ns=at(7.5), end_utc_ns=at(9.5), machine=machine, n_cpus=4,
        own=tuple(ProcessId(pid=pid, start_ticks=pid) for pid in own),
        foreign=tuple(ProcessLoad(pid=pid, start_ticks=pid, name=name, cpu_s=cpu_s) for name, pid, cpu_s in foreign),
        foreign_cpu_s=sum(cpu_s for _, _, cpu_s in foreign), unseen_cpu_s=unseen_s, steal_s=steal_s,
    )  # fmt: skip


def window(label: WindowLabel = "decode", **nodes: MachineLoad) -> WindowLoad:
    return WindowLoad(label=label, nodes=nodes)


def run_with(rules: WindowRules = LONG, **changes: object) -> RunInput:
    return run_input().model_copy(update={"protocol": PROTOCOL.model_copy(update={"rules": rules}), **changes})


def findings(run: RunInput, rule: str) -> list[tuple[str, str, str]]:
    found = evaluate(run, block(FOUR, 16), questions((9, 9, 9))).evaluation.validity.findings
    return [(one.verdict, one.where, one.reason) for one in found if one.rule == rule]


def test_another_program_is_named_with_its_share_flagged_and_beyond_the_limit_barred() -> None:
    (said,) = findings(run_with(window_loads=(window(n1=used(("apt-get", 7, 0.3))),)), "foreign_load")
    assert said == ("FLAG", "n1, decode", "other programs used 0.15 of a core: apt-get, pid 7 0.15")
    many = used(*((f"make{n}", 10 + n, 0.4) for n in range(5)))
    (said,) = findings(run_with(window_loads=(window(n2=many),)), "foreign_load")
    assert said[0] == "FAIL" and "used 1.00 of a core: make0, pid 10 0.20, make1" in said[2] and "2 more" in said[2]
    (said,) = findings(run_with(DEMO_RULES, window_loads=(window(n2=many),)), "foreign_load")
    assert said[0] == "FLAG", "a shortened campaign is never barred for it: all of a demo is one machine"
    assert findings(run_with(window_loads=(window(n1=used(("sshd", 7, 0.02))),)), "foreign_load") == []


def test_programs_that_came_and_went_count() -> None:
    (said,) = findings(run_with(window_loads=(window(n1=used(unseen_s=0.4)),)), "foreign_load")
    assert said[0] == "FLAG" and "programs that came and went 0.20" in said[2]


def test_no_share_is_more_than_the_machine_has_cores() -> None:
    assert foreign_load(window(n1=used(("odd", 7, 90.0), unseen_s=3.0)))["n1"].cpu_share == 4


def test_nodes_on_one_machine_are_disturbed_once() -> None:
    busy = used(("stress", 9, 0.4), own=(1,))
    run = run_with(window_loads=(window(n1=busy, n2=busy, n3=busy.model_copy(update={"machine": "m3"})),))
    assert [where for _, where, _ in findings(run, "foreign_load")] == ["n1 n2, decode", "n3, decode"]


def test_agents_that_share_a_machine_are_not_foreign_to_each_other() -> None:
    one = used(("python", 2, 1.9), ("stress", 9, 0.4), own=(1,))
    other = used(("python", 1, 1.9), ("stress", 9, 0.4), own=(2,))
    shared = foreign_load(window(n1=one, n2=other))
    assert {node: round(load.cpu_share, 3) for node, load in shared.items()} == {"n1": 0.2, "n2": 0.2}
    assert [name for name, _ in shared["n1"].programs] == ["stress, pid 9"]
    apart = foreign_load(window(n1=one, n2=other.model_copy(update={"machine": "m2"})))
    assert round(apart["n1"].cpu_share, 3) == 1.15, "the same numbers on two machines are two processes"


def test_time_that_the_host_took_is_judged() -> None:
    assert findings(run_with(window_loads=(window(n1=used(steal_s=0.04)),)), "steal") == []
    (said,) = findings(run_with(window_loads=(window(n1=used(steal_s=0.2)),)), "steal")
    assert said[0] == "FLAG" and "took 2.5% of its time" in said[2]
    (said,) = findings(run_with(window_loads=(window(n1=used(steal_s=0.8)),)), "steal")
    assert said[0] == "FAIL"
    assert findings(run_with(window_loads=(window(n1=used(steal_s=None)),)), "steal") == []


def clock(before_s: float, after_s: float, round_trip_s: float = 0.002) -> NodeClock:
    def offset(seconds: float, utc_ns: int) -> ClockOffset:
        return ClockOffset(utc_ns=utc_ns, offset_ns=round(seconds * 1e9), uncertainty_s=round_trip_s / 2)

    return NodeClock(before=offset(before_s, T0), after=offset(after_s, T0 + 100 * 10**9))


def test_a_clock_that_moved_bars_the_run_of_its_root_and_flags_another_node() -> None:
    run = run_with(clocks={"n1": clock(5.0, 5.4), "n2": clock(0.0, -0.3), "n3": clock(7.0, 7.01)})
    assert [(verdict, where) for verdict, where, _ in findings(run, "clock")] == [("FAIL", "n1"), ("FLAG", "n2")]
    assert "moved by +0.4 s" in findings(run, "clock")[0][2]
    slow = run_with(clocks={"n1": clock(0.0, 0.15, round_trip_s=0.2)})
    assert findings(slow, "clock") == [], "what slow round trips explain is no drift"


def test_times_follow_the_clock_on_a_line_and_its_doubt_widens_the_lag() -> None:
    moving = clock(1.0, 1.1)
    assert moving.ours(T0 + round(1.0e9)) == T0
    assert moving.ours(T0 + round(51.05e9)) == T0 + 50 * 10**9
    assert moving.ours(T0 + round(101.1e9)) == T0 + 100 * 10**9
    assert moving.ours(T0 + round(201.1e9)) == T0 + 200 * 10**9, "beyond the last comparison its offset holds"
    assert clock(3.0, 3.0).uncertainty_s == pytest.approx(0.001 / 3**0.5)
    assert moving.uncertainty_s == pytest.approx(((0.1 - 0.002) / 2 / 3**0.5), rel=1e-3)

    def lag(run: RunInput) -> float:
        return evaluate(run, block(FOUR, 16), questions((9, 9, 9))).evaluation.lag.uncertainty_s

    alone = lag(run_with())
    assert lag(run_with(clocks={"n1": moving})) == pytest.approx((alone**2 + moving.uncertainty_s**2) ** 0.5)
    assert lag(run_with(clocks={"n2": moving})) == alone, "windows are told by the root's clock"


def repetitions(name: str, joules: list[float], rules: WindowRules = LONG, version: int = RULES_VERSION) -> tuple[
    list[RunInput], list[RunEvaluation]
]:  # fmt: skip
    inputs, runs = [], []
    protocol = PROTOCOL.model_copy(update={"rules": rules})
    run = run_input(name, protocol=protocol)
    found = evaluate(run, block(FOUR, 16), questions((9, 9, 9))).evaluation
    for number, value in enumerate(joules, start=1):
        identity = f"{name}/rep-{number}"
        inputs.append(run.model_copy(update={"run_id": identity, "repetition": number, "rules_version": version}))
        by_basis = {
            basis: epi.model_copy(update={"joules_per_token": value}) for basis, epi in found.epi_by_basis.items()
        }
        runs.append(found.model_copy(update={"run_id": identity, "repetition": number, "epi_by_basis": by_basis}))
    return inputs, runs


def judged(**campaign: tuple[list[RunInput], list[RunEvaluation]]) -> dict[str, list[str]]:
    found = judge_repetitions(
        {name: inputs for name, (inputs, _) in campaign.items()}, {name: runs for name, (_, runs) in campaign.items()}
    )
    return {
        name: [next((one.reason for one in run.validity.findings if one.rule == "repetition"), "") for run in runs]
        for name, runs in found.items()
    }


def test_a_repetition_far_from_the_others_is_barred_and_kept() -> None:
    near, off, also = judged(baseline=repetitions("baseline", [2.0, 11.6, 2.1]))["baseline"]
    assert (near, also) == ("", "")
    assert "5.52 times the J/token of the median of the repetitions (limit 1.25, the protocol's limit)" in off
    assert judged(baseline=repetitions("baseline", [2.0, 2.2, 2.1]))["baseline"] == ["", "", ""]
    low = judged(baseline=repetitions("baseline", [2.0, 1.0, 2.1]))["baseline"]
    assert [bool(reason) for reason in low] == [False, True, False], "too little is as wrong as too much"


def test_of_two_that_differ_nobody_can_say_which_is_right() -> None:
    one, other = judged(baseline=repetitions("baseline", [2.0, 11.6]))["baseline"]
    assert "nobody can say which is right" in one and "nobody can say which is right" in other
    assert judged(baseline=repetitions("baseline", [2.0, 2.4]))["baseline"] == ["", ""]
    assert judged(baseline=repetitions("baseline", [2.0]))["baseline"] == [""]


def test_the_spread_of_the_other_configurations_narrows_the_limit() -> None:
    still = {f"drop{depth}_all": repetitions(f"drop{depth}_all", [2.0, 2.004, 1.996]) for depth in range(1, 5)}
    found = judged(baseline=repetitions("baseline", [2.0, 2.2, 2.002]), **still)
    assert [bool(reason) for reason in found["baseline"]] == [False, True, False]
    assert "10 times the spread of the other configurations" in found["baseline"][1]
    assert not any(reason for name in still for reason in found[name]), "its own error does not widen or narrow others"
    few = {"drop1_all": still["drop1_all"]}
    assert judged(baseline=repetitions("baseline", [2.0, 2.2, 2.002]), **few)["baseline"] == ["", "", ""]


def test_what_earlier_rules_judged_stays_as_it_was() -> None:
    assert judged(baseline=repetitions("baseline", [2.0, 11.6, 2.1], version=1))["baseline"] == ["", "", ""]
    assert "rules_version" not in run_input().model_dump()
    assert not {"clocks", "window_loads"} & run_input().model_dump().keys()
    assert (
        WindowRules()
        .model_dump()
        .keys()
        .isdisjoint({"max_repetition_ratio", "max_foreign_cpu_share", "max_clock_drift_s"})
    )
