"""Calibration and the uncertainty budget: the truth lies within the stated uncertainty, nonsense is refused."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from meter_bridge.cli.calibrate import read_points
from meter_bridge.instrument.budget import AccuracySettings, budget
from meter_bridge.instrument.calibration import CalibrationDraft, CalibrationRecord, LoadPoint, fit_calibration
from meter_bridge.instrument.calibration_store import CalibrationStore
from shared.kernel.errors import ConflictError, DataError, NotFoundError

LOADS = (3.0, 6.0, 12.0, 25.0, 50.0)


def draft(pairs: list[tuple[float, float]], sigma_w: float = 0.0, reference: float = 0.002) -> CalibrationDraft:
    points = tuple(
        LoadPoint(node="node1", reference_w=true, measured_w=raw, measured_uncertainty_w=sigma_w) for true, raw in pairs
    )
    return CalibrationDraft(reference="lab meter 7", reference_relative_uncertainty=reference, points=points)


def fit(made: CalibrationDraft) -> CalibrationRecord:
    return fit_calibration(made, version=1, created_utc_ns=0, instrument="m", nodes=("node1", "node2"))


@given(st.floats(0.6, 1.8), st.floats(-2, 2))
def test_an_exact_line_is_found_exactly(gain: float, offset: float) -> None:
    record = fit(draft([(true, (true - offset) / gain) for true in LOADS]))
    (channel,) = record.channels
    assert channel.gain == pytest.approx(gain, rel=1e-9)
    assert channel.offset_w == pytest.approx(offset, abs=1e-7)
    assert channel.residual_max_w < 1e-9
    assert channel.correct((7.0 - offset) / gain) == pytest.approx(7.0)
    assert math.isnan(channel.correct(math.nan))


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_the_truth_lies_within_the_uncertainty(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gain, offset = rng.uniform(0.8, 1.25), rng.uniform(-0.5, 0.5)
    noisy = [(true, (true - offset) / gain + rng.normal(0, 0.02)) for true in LOADS]
    record = fit(draft(noisy, sigma_w=0.02))
    for power in (3.0, 10.0, 40.0):
        error = record.channels[0].correct((power - offset) / gain) - power
        share = record.relative_uncertainty("node1", power)
        assert share is not None
        assume(share > 0)
        assert abs(error) < 5 * share * power
        assert share < 0.02


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(true, -true) for true in LOADS], "falls as the load rises"),
        ([(true, true * 3) for true in LOADS], "gain"),
        ([(true, true - 9) for true in LOADS], "offset"),
        ([(10, 10), (10.05, 10), (10.1, 10), (30, 30)], "different loads"),
        ([(10, 10), (12, 12), (14, 14), (16, 16)], "span"),
        ([(true, 5.0) for true in LOADS], "same power"),
        ([(3, 3), (6, 6), (12, 12), (25, 21), (50, 50)], "off the line"),
        ([(3, 50), (6, 25), (12, 12), (25, 6), (50, 3)], "falls"),
    ],
)
def test_nonsense_is_refused(pairs: list[tuple[float, float]], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        fit(draft(pairs))
    assert error.value.where == "node1"
    assert error.value.hint


def test_a_node_without_a_channel_is_refused() -> None:
    made = draft([(true, true) for true in LOADS])
    with pytest.raises(DataError, match="no channel"):
        fit_calibration(made, version=1, created_utc_ns=0, instrument="m", nodes=("other",))


def test_versions_are_numbered_dated_and_never_changed(tmp_path: Path) -> None:
    store = CalibrationStore(tmp_path)
    assert store.newest is None
    good = draft([(true, true * 0.9) for true in LOADS])
    first = store.add(good, instrument="m", nodes=("node1",))
    kept = (tmp_path / "cal-0001.json").read_bytes()
    with pytest.raises(DataError):
        store.add(draft([(true, -true) for true in LOADS]), instrument="m", nodes=("node1",))
    second = store.add(good, instrument="m", nodes=("node1",))
    assert [record.id for record in CalibrationStore(tmp_path).records] == ["cal-0001", "cal-0002"]
    assert (tmp_path / "cal-0001.json").read_bytes() == kept
    assert CalibrationStore(tmp_path).get("cal-0001") == first
    assert CalibrationStore(tmp_path).newest == second
    other = CalibrationStore(tmp_path)
    third = store.add(good, instrument="m", nodes=("node1",))
    with pytest.raises(ConflictError, match="somebody else"):
        other.add(good, instrument="n", nodes=("node1",))
    assert CalibrationStore(tmp_path).newest == third
    assert first.age_days(first.created_utc_ns + 400 * 86_400_000_000_000) == pytest.approx(400)
    with pytest.raises(NotFoundError):
        store.get("cal-0009")
    (tmp_path / "cal-0001.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        CalibrationStore(tmp_path)


def test_points_from_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "loads.csv"
    path.write_text("node,reference_w,measured_w\nnode1,3,2.9\nnode1,6,5.8\n")
    assert [point.reference_w for point in read_points(path)] == [3.0, 6.0]
    path.write_text("node,reference_w,measured_w\nnode1,3,2.9\nnode1,-6,5.8\n")
    with pytest.raises(DataError, match="reference_w") as error:
        read_points(path)
    assert error.value.where.endswith("line 3")
    with pytest.raises(DataError):
        read_points(tmp_path / "none.csv")


def test_budget_adds_in_quadrature_and_calibration_replaces_the_data_sheet() -> None:
    accuracy = AccuracySettings(ct_class_percent=3, ct_phase_error_deg=3, ic_error_percent=0.5, ic_step_w=1.0)
    raw = budget("node1", 3.0, accuracy, None)
    # Design figures: one count of 1 W is 1/sqrt(12)/3 = 9.6 % at 3 W.
    assert raw.contributions["ic_step"] == pytest.approx(0.0962, abs=1e-3)
    assert raw.contributions["ct_phase"] == pytest.approx(math.radians(3) * (4 / 3) / math.sqrt(3), rel=1e-6)
    assert raw.total == pytest.approx(math.sqrt(sum(value**2 for value in raw.contributions.values())))
    assert raw.total is not None
    record = fit(draft([(true, true * 0.9) for true in LOADS]))
    better = budget("node1", 12.0, accuracy, record)
    assert set(better.contributions) == {"calibration", "ic_step"}
    assert better.total is not None
    assert better.total < raw.total
    assert budget("node1", 3.0, AccuracySettings(), None).total is None
    assert budget("node1", 3.0, AccuracySettings(), None, stated=0.02).total == 0.02
    # A channel that was not calibrated keeps its data sheet.
    assert "ct_ratio" in budget("node2", 3.0, accuracy, record).contributions


@pytest.mark.parametrize("power_w", [5e-324, 1e-200, 1e-6, 1e5])
def test_the_budget_of_any_power_is_a_number(power_w: float) -> None:
    total = budget("node1", power_w, AccuracySettings(ic_error_percent=1.0, ic_step_w=10.0), None).total
    assert total is not None and 0 < total < 1e12
