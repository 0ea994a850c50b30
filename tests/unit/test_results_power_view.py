"""A run's power in columns: means, envelope and gaps of any part; long lines in figures keep their peaks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.run.alignment import Trace
from orchestrator.domain.run.decimation import envelope
from orchestrator.results.power_view import PowerViews, power_view
from shared.files.trace_csv import TraceCsvWriter
from shared.kernel.errors import DataError, NotFoundError

NS = 1_000_000_000
T0 = 1_790_000_000 * NS


def traces(count: int, step_ns: int = NS // 10, missing: tuple[int, ...] = ()) -> dict[str, Trace]:
    times = T0 + np.arange(count, dtype=np.int64) * step_ns
    there = ~np.isin(np.arange(count), missing)
    return {
        "a": Trace("a", times, np.arange(count, dtype=np.float64)),
        "b": Trace("b", times[there], np.full(int(there.sum()), 5.0))
        if missing
        else Trace("b", times, np.full(count, 5.0)),
    }


def test_the_whole_run_in_few_columns() -> None:
    view = power_view(traces(1000), None, None, 10)
    assert (view.start_utc_ns, view.end_utc_ns) == (T0, T0 + 999 * NS // 10)
    assert view.nodes == ("a", "b")
    assert len(view.utc_s) in (10, 11)
    assert view.mean_w["a"][0] == pytest.approx(49.5, abs=1)
    assert view.cluster_low_w[0] == 5.0
    assert view.cluster_high_w[-1] == 1004.0
    assert set(view.mean_w["b"]) == {5.0}
    assert list(view.utc_s) == sorted(view.utc_s)


def test_a_part_shows_every_sample_and_a_little_beside() -> None:
    view = power_view(traces(1000), T0 + 50 * NS, T0 + 51 * NS, 800)
    assert view.mean_w["a"] == tuple(float(n) for n in range(490, 521))
    assert view.cluster_low_w == view.cluster_high_w == tuple(float(n) + 5 for n in range(490, 521))
    assert view.utc_s[0] == pytest.approx((T0 + 49 * NS) / NS, abs=1e-6)


def test_a_gap_is_null_and_a_missing_reading_counts_as_nothing() -> None:
    parts = [traces(50), traces(50)]
    later = {node: Trace(node, trace.utc_ns + 60 * NS, trace.power_w) for node, trace in parts[1].items()}
    joined = {
        node: Trace(
            node, np.concatenate([trace.utc_ns, later[node].utc_ns]),
            np.concatenate([trace.power_w, later[node].power_w]),
        )
        for node, trace in parts[0].items()
    }  # fmt: skip
    view = power_view(joined, None, None, 800)
    (gap,) = [at for at, value in enumerate(view.cluster_low_w) if value is None]
    assert view.mean_w["a"][gap] is None and view.mean_w["b"][gap] is None and view.cluster_high_w[gap] is None
    assert view.utc_s[gap] == pytest.approx((view.utc_s[gap - 1] + view.utc_s[gap + 1]) / 2)
    holes = power_view(traces(50, missing=(3, 4)), None, None, 800)
    assert holes.mean_w["b"][2:6] == (5.0, 0.0, 0.0, 5.0)
    assert holes.cluster_low_w[3] == 3.0


def test_nothing_in_the_part_and_nothing_at_all() -> None:
    view = power_view(traces(50), T0 + 1000 * NS, T0 + 1001 * NS, 10)
    assert view.utc_s == () and view.mean_w == {"a": (), "b": ()}
    with pytest.raises(DataError, match="empty"):
        power_view(traces(1), None, None, 10)
    with pytest.raises(DataError, match="empty"):
        power_view({}, None, None, 10)


@given(
    st.integers(2, 300), st.integers(1, 50), st.integers(-10 * NS, 40 * NS), st.integers(-10 * NS, 40 * NS),
    st.sampled_from([(), (0,), (1, 2), (7,)]),
)  # fmt: skip
def test_any_part_in_any_number_of_columns(
    count: int, columns: int, start: int, end: int, missing: tuple[int, ...]
) -> None:
    view = power_view(traces(count, missing=missing), T0 + start, T0 + end, columns)
    lengths = {len(view.utc_s), len(view.cluster_low_w), len(view.cluster_high_w), *map(len, view.mean_w.values())}
    assert len(lengths) == 1
    for low, high, *means in zip(view.cluster_low_w, view.cluster_high_w, *view.mean_w.values(), strict=True):
        if low is None or high is None:
            continue
        assert low <= sum(mean or 0.0 for mean in means) + 1e-6 <= high + 2e-6


def test_the_file_is_read_once_and_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.results import power_view as module

    path, reads = tmp_path / "power_trace_001.csv", []
    read = module.read_traces  # type: ignore[attr-defined]

    def counted(one: Any) -> Any:
        reads.append(one)
        return read(one)

    monkeypatch.setattr(module, "read_traces", counted)
    views = PowerViews()
    with pytest.raises(NotFoundError):
        views.view(path, None, None, 10)
    for count in (100, 200):
        with path.open("wb") as file:
            TraceCsvWriter(file).add(list(range(T0, T0 + count * NS, NS)), {"a": [1.0] * count})
        for _ in range(3):
            assert views.view(path, None, None, 10).end_utc_ns == T0 + (count - 1) * NS
    assert len(reads) == 2


def test_long_lines_keep_their_peaks_and_short_ones_are_as_they_were() -> None:
    x = np.arange(100_000, dtype=np.float64)
    y = np.sin(x / 1000)
    y[54_321] = 9.0
    few_x, few_y = envelope(x, y, 1000)
    assert few_x.size <= 1000
    assert few_y.max() == 9.0 and few_y.min() == y.min()
    assert bool(np.all(np.diff(few_x) >= 0))
    same_x, same_y = envelope(x[:1000], y[:1000], 1000)
    assert same_x.size == same_y.size == 1000
