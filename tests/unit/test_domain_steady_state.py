"""The wait before a run's first window: what a spec asks for, and how metered power is judged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.domain.analysis.deliveries import delivery_totals
from orchestrator.domain.campaign.steady_state import SteadyStateSpec
from shared.kernel.slope import relative_drift
from shared.wire.node_jobs.artifacts import FetchResult, TransferFailure
from shared.wire.node_jobs.host import SteadyGateParams


def test_the_modes_say_what_the_nodes_are_asked_for() -> None:
    steady = SteadyGateParams(min_s=10, max_s=120)
    assert SteadyStateSpec(mode="fixed", steady=steady).gate is None
    assert SteadyStateSpec(mode="steady", fixed_s=99, steady=steady).gate == steady
    both = SteadyStateSpec(mode="both", fixed_s=99, steady=steady).gate
    assert both is not None and (both.min_s, both.max_s) == (99, 120)


def test_a_ceiling_below_the_fixed_wait_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"the ceiling steady\.max_s = 120 lies below 300 s"):
        SteadyStateSpec(mode="both", fixed_s=300, steady=SteadyGateParams(max_s=120))


@given(st.floats(1, 100), st.floats(-0.5, 0.5), st.integers(3, 60))
def test_the_drift_of_a_straight_line_is_its_rise_over_its_mean(mean_w: float, drift: float, count: int) -> None:
    line: list[tuple[int, float | None]] = [
        (n * 10**9, mean_w * (1 + drift * (n / (count - 1) - 0.5))) for n in range(count)
    ]
    assert relative_drift(line) == pytest.approx(drift, abs=1e-6)
    assert relative_drift([*line, (count * 10**9, None)]) == pytest.approx(drift, abs=1e-6)


def test_nothing_is_said_of_too_few_samples() -> None:
    s = 10**9
    assert relative_drift([(0, 3.0), (s, 4.0)]) is None
    assert relative_drift([(0, None), (s, 4.0), (2 * s, None)]) is None
    assert relative_drift([(0, 0.0), (s, 0.0), (2 * s, 0.0)]) is None
    assert relative_drift([(s, 1.0), (s, 2.0), (s, 3.0)]) is None


def test_bytes_are_added_up_by_node_and_way_with_those_sent_in_vain() -> None:
    def came(method: str, received: int, *failed: TransferFailure) -> FetchResult:
        return FetchResult.model_validate(
            {"sha256": "0" * 64, "size_bytes": 1000, "method": method, "bytes_received": received, "seconds": 0.1,
             "considered": (), "failed": failed}
        )  # fmt: skip

    vain = TransferFailure(method="plan", reason="another hash", bytes_received=70)
    totals = delivery_totals([("a", came("plan", 70)), ("a", came("http", 1000, vain)), ("a", came("plan", 80))])
    assert [(one.method, one.times, one.net_bytes, one.file_bytes, one.failed) for one in totals] == [
        ("http", 1, 1070, 1000, 1), ("plan", 2, 150, 2000, 0),
    ]  # fmt: skip
