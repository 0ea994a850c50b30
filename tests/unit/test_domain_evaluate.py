"""A run's energy, EPI and validity from synthetic traces with closed-form answers."""

from collections.abc import Sequence

import pytest

from orchestrator.domain.campaign.protocol import DEMO_RULES, MeasurementProtocol
from orchestrator.domain.campaign.steady_state import SteadyStateWait
from orchestrator.domain.run.alignment import integrate
from orchestrator.domain.run.evaluate import RunEvaluation
from orchestrator.domain.run.per_question import question_energies, summarise_questions
from orchestrator.domain.run.records import Environment, RunInput
from shared.kernel.errors import DataError
from shared.kernel.records import QuestionResult
from shared.wire.meter_api import SampleBlock, TraceEvent
from shared.wire.node_jobs.activity import AgentActivity, AgentEvent
from shared.wire.node_jobs.host import NodeFacts
from tests.support.domain_lab import (
    INSTRUMENT,
    PROTOCOL,
    T0,
    at,
    block,
    evaluate,
    load,
    questions,
    run_input,
    traces_of,
    window,
)

FOUR = {f"n{i}": load for i in range(1, 5)}


def evaluation_of(run: RunInput, samples: SampleBlock, asked: Sequence[QuestionResult]) -> RunEvaluation:
    return evaluate(run, samples, asked).evaluation


def test_energy_and_epi_of_a_known_load() -> None:
    """9 W a node in the decode window, sampled late by 0.3 s: 4 x 9 W x 2 s over 400 tokens and A = 0.7."""
    result = evaluation_of(run_input(), block(FOUR, 16, hz=50, late_s=0.3), questions((14, 14, 14)))
    assert result.lag.accepted
    assert result.lag.lag_s == pytest.approx(0.3, abs=0.02)
    decode = result.phases["decode"]
    assert decode.total_joules == pytest.approx(72.0, rel=0.01)
    assert decode.net_joules == pytest.approx(48.0, rel=0.015)
    assert decode.total_joules is not None
    assert decode.kwh_total == pytest.approx(decode.total_joules / 3.6e6)
    assert decode.peak_watts_cluster == pytest.approx(36.0)
    assert result.total_tokens == 400
    assert result.epi.accuracy_composite == pytest.approx(0.7)
    assert result.epi.value == pytest.approx(72.0 / 400 / 0.7, rel=0.01)
    assert result.epi_by_basis["prefill_prompt"].joules_per_token == pytest.approx(72 / 1000, rel=0.01)
    assert result.joules_per_question == pytest.approx(144 / 60, rel=0.01)
    assert result.joules_per_correct == pytest.approx(144 / 42, rel=0.01)
    assert sum((result.idle_watts or {}).values()) == pytest.approx(12.0, rel=1e-9)
    assert result.validity.verdict == "FLAG"
    assert {finding.rule for finding in result.validity.findings} == {"shortened", "emulated"}


def test_ten_hertz_and_two_seconds_are_enough() -> None:
    result = evaluation_of(run_input(), block(FOUR, 16, hz=10, late_s=0.12), questions((14, 14, 14)))
    assert result.validity.verdict == "FLAG"
    assert result.phases["decode"].total_joules == pytest.approx(72.0, rel=0.05)
    assert result.phases["decode"].lag_uncertainty_joules is not None


def test_no_accuracy_no_tokens_no_trace_give_a_reason_and_never_infinity() -> None:
    samples = block(FOUR, 16)
    wrong = evaluation_of(run_input(), samples, questions((0, 0, 0)))
    assert wrong.epi.value is None and "correct" in wrong.epi.reason
    assert wrong.epi.joules_per_token is not None
    silent = run_input(windows=(window("decode", 7.5, 9.5), window("score", 10, 14)))
    assert "no token" in evaluation_of(silent, samples, questions((9, 9, 9))).epi.reason
    cut = samples.model_copy(
        update={"utc_ns": samples.utc_ns[:110], "power_w": {n: p[:110] for n, p in samples.power_w.items()}}
    )
    short = evaluation_of(run_input(), cut, questions((9, 9, 9)))
    assert short.epi.value is None and "end of the window" in short.epi.reason
    assert short.validity.verdict == "FAIL"
    missing = evaluation_of(run_input(), samples, questions((9, 9, 9))[:40])
    assert missing.epi.value is None and "hellaswag" in missing.epi.reason


def test_several_decode_windows_add_up() -> None:
    samples = block(FOUR, 16)
    one = evaluation_of(run_input(), samples, questions((9, 9, 9)))
    parts = (
        window("decode", 7.5, 8.3, generated=150), window("decode", 8.3, 9.5, generated=250), window("score", 10, 14),
    )  # fmt: skip
    two = evaluation_of(run_input(windows=parts), samples, questions((9, 9, 9)))
    assert two.phases["decode"].total_joules == pytest.approx(one.phases["decode"].total_joules, rel=1e-9)
    assert two.epi.value == pytest.approx(one.epi.value, rel=1e-9)


def test_real_rules_fail_short_windows() -> None:
    strict = MeasurementProtocol(accuracy=run_input().protocol.accuracy)
    result = evaluation_of(run_input(protocol=strict), block(FOUR, 16), questions((9, 9, 9)))
    assert result.validity.verdict == "FAIL"
    assert any(finding.rule == "duration" for finding in result.validity.findings)
    assert result.epi.value is not None, "a FAIL keeps the data"


def timed(spans: list[tuple[float, float] | None]) -> tuple[QuestionResult, ...]:
    asked = questions((9, 9, 9))[: len(spans)]
    return tuple(
        q if span is None else q.model_copy(update={"start_utc_ns": at(span[0]), "end_utc_ns": at(span[1])})
        for q, span in zip(asked, spans, strict=True)
    )


def test_joules_of_single_questions_or_the_reason_why_not() -> None:
    spans: list[tuple[float, float] | None] = [
        (10.0, 11.0), (11.0, 11.2), (11.5, 12.5), (12.4, 13.0), None, (13.0, 13.9), (900.0, 901.0),
    ]  # fmt: skip
    found = question_energies(traces_of(block(FOUR, 16)), timed(spans), lag_s=0.0, gap_limit_s=0.5)
    assert found[0].joules == pytest.approx(36.0, rel=0.05)
    assert found[5].joules == pytest.approx(32.4, rel=1e-9)
    reasons = [entry.reason for entry in found]
    assert "shorter than" in reasons[1] and "together" in reasons[2] and "together" in reasons[3]
    assert "not recorded" in reasons[4] and "cover" in reasons[6]
    summary = summarise_questions(found)
    assert summary.resolved == 2 and sum(summary.unresolved.values()) == 5


def test_register_is_compared_with_the_integral() -> None:
    samples = block(FOUR, 16)
    traces = traces_of(samples)
    true = {n: integrate(t, int(t.utc_ns[0]), int(t.utc_ns[-1]), 0.5).energy_j for n, t in traces.items()}
    register = {"n1": true["n1"], "n2": (true["n2"] or 0) * 1.05, "n3": None}
    with_register = samples.model_copy(update={"energy_register_j": register})
    result = evaluation_of(run_input(), with_register, questions((9, 9, 9)))
    assert {check.node: round(check.relative, 6) for check in result.energy_register_check} == {"n1": 0.0, "n2": 0.05}
    assert [f.where for f in result.validity.findings if f.rule == "register"] == ["n2"]


def test_gaps_meter_events_and_calibration_age_are_flagged() -> None:
    event = TraceEvent(utc_ns=at(8.0), kind="gap", count=3)
    run = run_input(
        protocol=PROTOCOL.model_copy(update={"rules": DEMO_RULES.model_copy(update={"min_gap_before_window_s": 0.6})}),
        instrument=INSTRUMENT.model_copy(update={"emulated": False, "kind": "ac_meter"}),
        calibrated_utc_ns=T0 - 400 * 86_400 * 10**9,
        meter_events=(event,),
    )
    findings = evaluation_of(run, block(FOUR, 16), questions((9, 9, 9))).validity.findings
    assert {(f.rule, f.where) for f in findings} >= {
        ("gap_before_window", "decode[0]"), ("gap_before_window", "score[0]"), ("meter", "decode[0]"),
        ("calibration", "instrument"),
    }  # fmt: skip
    assert ("gap_before_window", "prefill[0]") not in {(f.rule, f.where) for f in findings}


def test_throttling_and_governor_fail_a_run() -> None:
    facts = NodeFacts(
        name="n1", n_cpus=4, memory_bytes=8 << 30, kernel="6.6", python="3.11", load_1min=0.1, disk_free_bytes=1,
        utc_ns=T0, throttled_bits=0, temperature_c=50.0,
    )  # fmt: skip
    later = facts.model_copy(update={"throttled_bits": 0x40000, "temperature_c": 61.0})
    rules = DEMO_RULES.model_copy(update={"shortened": False})
    run = run_input(
        facts_before=(facts,), facts_after=(later,),
        environment=Environment(frequency_governor="ondemand", ambient_temp_c=30),
        protocol=PROTOCOL.model_copy(update={"rules": rules}),
    )  # fmt: skip
    validity = evaluation_of(run, block(FOUR, 16), questions((9, 9, 9))).validity
    assert validity.verdict == "FAIL"
    found = {f.rule: f.verdict for f in validity.findings}
    assert (found["throttling"], found["governor"], found["temperature"], found["ambient"]) == (
        "FAIL", "FAIL", "FLAG", "FLAG",
    )  # fmt: skip


def test_an_agent_that_was_not_silent_is_flagged() -> None:
    def activity(cpu_s: float, *seconds: float, written: int = 0) -> AgentActivity:
        events = tuple(AgentEvent(utc_ns=at(s), what="GET /v1/facts") for s in seconds)
        return AgentActivity(
            start_utc_ns=at(-1), end_utc_ns=at(15), agent_cpu_s=cpu_s, agent_written_bytes=written, events=events
        )

    # n1 is the root: it serves jobs between the windows and is judged by what it did inside each workload.
    run = run_input(
        agent_activity={
            "n1": activity(0.1, 7.2, 9.7, written=4096), "n2": activity(0.01, 8.0), "n3": activity(3.0),
            "n4": activity(0.01, written=4096),
        },
        window_agent_activity={"decode": activity(0.01), "score": activity(0.1)},
    )  # fmt: skip
    findings = evaluation_of(run, block(FOUR, 16), questions((9, 9, 9))).validity.findings
    told = {f.where: f.reason for f in findings if f.rule == "agent_quiet"}
    assert set(told) == {"n2", "n3, all windows", "n4, all windows", "root, score"}
    assert "decode" in told["n2"] and "of a core" in told["n3, all windows"] and "to disk" in told["n4, all windows"]


def test_a_gate_that_timed_out_is_a_flag_and_a_fixed_wait_is_none() -> None:
    def rules_of(steady_state: SteadyStateWait) -> dict[str, str]:
        run = run_input(steady_state=steady_state)
        findings = evaluation_of(run, block(FOUR, 16), questions((9, 9, 9))).validity.findings
        return {f.rule: f"{f.verdict} {f.reason}" for f in findings}

    waited = SteadyStateWait(mode="both", start_utc_ns=at(-301), end_utc_ns=at(-1), steady=False, reasons=("n2: hot",))
    assert rules_of(waited)["steady"] == "FLAG not steady after 300 s: n2: hot"
    assert "steady" not in rules_of(waited.model_copy(update={"steady": True, "reasons": ()}))
    assert "steady" not in rules_of(waited.model_copy(update={"mode": "fixed", "steady": None, "reasons": ()}))


def test_only_nodes_in_use_are_charged() -> None:
    whole = evaluation_of(run_input(), block(FOUR, 16), questions((14, 14, 14)))
    half = evaluation_of(run_input(nodes=("n1", "n2")), block(FOUR, 16), questions((14, 14, 14)))
    assert half.phases["decode"].total_joules == pytest.approx((whole.phases["decode"].total_joules or 0) / 2, rel=1e-9)
    with pytest.raises(DataError, match="n9"):
        evaluation_of(run_input(nodes=("n1", "n9")), block(FOUR, 16), questions((14, 14, 14)))


def test_a_stalled_request_fails_the_run() -> None:
    """An engine stopped for 20 s inside decode: the joules are there, the tokens are not."""

    def judged(requests: tuple[float, ...]) -> set[tuple[str, str]]:
        run = run_input()
        windows = tuple(
            one.model_copy(update={"request_s": requests}) if one.label == "decode" else one for one in run.windows
        )
        found = evaluate(run.model_copy(update={"windows": windows}), block(FOUR, 16), questions((9, 9, 9)))
        return {(f.rule, f.verdict) for f in found.evaluation.validity.findings if f.rule == "stall"}

    assert judged((0.2, 0.21, 20.2, 0.19)) == {("stall", "FAIL")}
    assert judged((20.2, 20.1, 20.0, 21.0)) == set(), "slow alike is no stall"
    assert judged((0.1, 0.1, 0.5, 0.1)) == set(), "less than a second is the scheduler"
    assert judged((0.1, 30.0)) == set(), "of two nobody knows which is right"
