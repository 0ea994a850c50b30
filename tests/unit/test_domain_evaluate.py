"""A run's energy, EPI and validity from synthetic traces with closed-form answers."""

import pytest

from orchestrator.domain.evaluate import evaluate_run
from orchestrator.domain.records import MeasurementProtocol
from tests.domain_lab import block, load, questions, run_input, window

FOUR = {f"n{i}": load for i in range(1, 5)}


def test_energy_and_epi_of_a_known_load() -> None:
    """9 W a node in the decode window, sampled late by 0.3 s: 4 x 9 W x 2 s over 400 tokens and A = 0.7."""
    result = evaluate_run(run_input(), block(FOUR, 16, hz=50, late_s=0.3), questions((14, 14, 14)))
    assert result.lag.accepted
    assert result.lag.lag_s == pytest.approx(0.3, abs=0.02)
    decode = result.phases["decode"]
    assert decode.total_joules == pytest.approx(72.0, rel=0.01)
    assert decode.net_joules == pytest.approx(48.0, rel=0.015)
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
    result = evaluate_run(run_input(), block(FOUR, 16, hz=10, late_s=0.12), questions((14, 14, 14)))
    assert result.validity.verdict == "FLAG"
    assert result.phases["decode"].total_joules == pytest.approx(72.0, rel=0.05)
    assert result.phases["decode"].lag_uncertainty_joules is not None


def test_no_accuracy_no_tokens_no_trace_give_a_reason_and_never_infinity() -> None:
    samples = block(FOUR, 16)
    wrong = evaluate_run(run_input(), samples, questions((0, 0, 0)))
    assert wrong.epi.value is None and "correct" in wrong.epi.reason
    assert wrong.epi.joules_per_token is not None
    silent = run_input(windows=(window("decode", 7.5, 9.5), window("score", 10, 14)))
    assert "no token" in evaluate_run(silent, samples, questions((9, 9, 9))).epi.reason
    cut = samples.model_copy(
        update={"utc_ns": samples.utc_ns[:110], "power_w": {n: p[:110] for n, p in samples.power_w.items()}}
    )
    short = evaluate_run(run_input(), cut, questions((9, 9, 9)))
    assert short.epi.value is None and "end of the window" in short.epi.reason
    assert short.validity.verdict == "FAIL"
    missing = evaluate_run(run_input(), samples, questions((9, 9, 9))[:40])
    assert missing.epi.value is None and "hellaswag" in missing.epi.reason


def test_several_decode_windows_add_up() -> None:
    samples = block(FOUR, 16)
    one = evaluate_run(run_input(), samples, questions((9, 9, 9)))
    parts = (
        window("decode", 7.5, 8.3, generated=150), window("decode", 8.3, 9.5, generated=250), window("score", 10, 14),
    )  # fmt: skip
    two = evaluate_run(run_input(windows=parts), samples, questions((9, 9, 9)))
    assert two.phases["decode"].total_joules == pytest.approx(one.phases["decode"].total_joules, rel=1e-9)
    assert two.epi.value == pytest.approx(one.epi.value, rel=1e-9)


def test_real_rules_fail_short_windows() -> None:
    strict = MeasurementProtocol(accuracy=run_input().protocol.accuracy)
    result = evaluate_run(run_input(protocol=strict), block(FOUR, 16), questions((9, 9, 9)))
    assert result.validity.verdict == "FAIL"
    assert any(finding.rule == "duration" for finding in result.validity.findings)
    assert result.epi.value is not None, "a FAIL keeps the data"
