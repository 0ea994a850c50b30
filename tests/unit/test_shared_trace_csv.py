"""The trace CSV: exact both ways, in pieces of any size; whatever a stranger's file holds is one clear error."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.files.trace_csv import (
    TraceCsvWriter,
    iso_utc_ns,
    parse_iso_utc_ns,
    read_columns,
    read_rows,
    trace_lines,
)
from shared.kernel.errors import DataError

POWERS = st.lists(st.none() | st.floats(-1e6, 1e6), min_size=20, max_size=20)
HEAD = "timestamp,node,watts\n"


@given(st.integers(0, 7_258_118_399_999_999_999))
def test_timestamps_survive(at: int) -> None:
    assert parse_iso_utc_ns(iso_utc_ns(at)) == at


def test_timestamps_have_nanoseconds() -> None:
    assert iso_utc_ns(1_769_860_800_000_000_001) == "2026-01-31T12:00:00.000000001Z"


@pytest.mark.parametrize("text", ["2026-13-01T00:00:00Z", "2026-01-01 00:00:00Z", "9999-01-01T00:00:00Z", "x", ""])
def test_other_timestamps_are_refused(text: str) -> None:
    with pytest.raises(DataError):
        parse_iso_utc_ns(text)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 4 * 10**18), min_size=1, max_size=20, unique=True), POWERS, POWERS, st.integers(1, 20))
def test_traces_survive_to_the_last_bit_in_pieces_of_any_size(
    tmp_path: Path, times: list[int], one: list[float | None], two: list[float | None], piece: int
) -> None:
    times.sort()
    power = {"n2": two[: len(times)], "n1": one[: len(times)]}
    whole, pieces = io.BytesIO(), io.BytesIO()
    TraceCsvWriter(whole).add(times, power)
    writer = TraceCsvWriter(pieces)
    for at in range(0, len(times), piece):
        writer.add(times[at : at + piece], {node: watts[at : at + piece] for node, watts in power.items()})
    assert pieces.getvalue() == whole.getvalue()
    assert writer.readings == sum(watts is not None for column in power.values() for watts in column)
    path = tmp_path / "trace.csv"
    path.write_bytes(whole.getvalue())
    columns = read_columns(path)
    for node, watts in power.items():
        sent = [(at, value) for at, value in zip(times, watts, strict=True) if value is not None]
        if not sent:
            assert node not in columns
            continue
        assert columns[node].utc_ns.tolist() == [at for at, _ in sent]
        assert columns[node].watts.tolist() == [value for _, value in sent]
    assert list(columns) == sorted(columns)


def test_equal_times_are_one_array(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        HEAD + "".join(trace_lines([1, 2, 3], {"a": [1.0, 2.0, 3.0], "b": [4.0] * 3, "c": [None, 1.0, 2.0]}))
    )
    columns = read_columns(path)
    assert columns["a"].utc_ns is columns["b"].utc_ns is not columns["c"].utc_ns


def test_lines_in_any_order_and_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        HEAD
        + "2026-01-31T12:00:01.5Z,b,2\r\n2026-01-31T12:00:00Z,b,1.0\r\n"
        + '"2026-01-31T12:00:00.000001Z",a,0.5\r\n'
    )
    columns = read_columns(path)
    base = parse_iso_utc_ns("2026-01-31T12:00:00Z")
    assert (columns["a"].utc_ns - base).tolist() == [1000]
    assert (columns["b"].utc_ns - base).tolist() == [0, 1_500_000_000]
    assert columns["b"].watts.tolist() == [1.0, 2.0]


def test_a_writer_refuses_times_that_do_not_ascend_and_columns_that_do_not_fit() -> None:
    out = io.BytesIO()
    writer = TraceCsvWriter(out)
    writer.add([5, 6], {"a": [1.0, 2.0]})
    written = out.getvalue()
    for times in ([6], [7, 7], [8, 7]):
        with pytest.raises(DataError, match="ascend"):
            writer.add(times, {"a": [1.0] * len(times)})
    with pytest.raises(DataError, match="1 powers for 2 times"):
        writer.add([7, 8], {"a": [1.0]})
    with pytest.raises(DataError, match="infinite"):
        writer.add([7], {"a": [float("inf")]})
    assert out.getvalue() == written
    writer.add(np.array([7], dtype=np.int64).tolist(), {"a": np.array([0.1])})  # type: ignore[dict-item]
    assert out.getvalue().endswith(b"1970-01-01T00:00:00.000000007Z,a,0.1\n")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "first line"),
        (b"time,node,watts\n", "first line"),
        (HEAD.encode() + b"2026-01-31T12:00:00Z,a\n", "line 2.*2 fields"),
        (HEAD.encode() + b"2026-01-31T12:00:00Z,a,1.0\nx,a,1.0\n", "timestamp"),
        (HEAD.encode() + b"2026-01-31T12:00:00.000000001Z,a,1\n2026-01-31T12:00:00.00000000 Z,a,1\n", "timestamp"),
        (HEAD.encode() + "2026-01-31T12:00:00.1Z,a,1\n2026-01-31T12:00:00.00000000\u00b2Z,a,1\n".encode(), "timestamp"),
        (HEAD.encode() + b"2026-01-31T12:00:00Z,a,1\n2026-01-31T12:00:00Z000000001Z,a,1\n", "timestamp"),
        (HEAD.encode() + b"2026-01-31T12:00:00Z,../a,1.0\n", "line 2.*node name"),
        (HEAD.encode() + b"2026-01-31T12:00:00Z,a,much\n", "line 2.*number"),
        (HEAD.encode() + b"2026-01-31T12:00:00Z,a,1_000\n", "line 2.*'1_000' is not a number"),
        (HEAD.encode() + b"2026-01-31T12:00:00Z,a, 12\n", "line 2.*not a number"),
        (HEAD.encode() + b"2026-01-31T12:00:00Z,a,1e308\n", "line 2.*watts.*1e308 is beyond"),
        (HEAD.encode() + "2026-01-31T12:00:00Z,a,\u0661\u0662\n".encode(), "line 2.*not a number"),
        (HEAD.encode() + "\u0662026-01-31T12:00:00Z,a,1\n".encode(), "timestamp"),
        (HEAD.encode() + b"2026-01-31T12:00:00Z,a,nan\n", "line 2.*not a number"),
        (HEAD.encode() + b"2026-01-31T12:00:00Z,a,1e999\n", "line 2.*watts.*1e999 is beyond"),
        (HEAD.encode() + b"2026-01-31T12:00:00Z,a,1\n2026-01-31T12:00:00.0Z,a,2\n", "two samples"),
        (HEAD.encode() + b"\xff\xfe", "cannot be read"),
        (HEAD.encode() + b"x" * 100_000, "longer than"),
        (b"\x00" * 1000, "longer than|first line|cannot be read"),
    ],
)
def test_rubbish_is_one_clear_error(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_columns(path)
    assert re.search(reason, str(caught.value))


def test_rows_before_the_damage_are_yielded(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(HEAD + "2026-01-31T12:00:00Z,a,1.0\n2026-01-31T12:00:01Z,a,2.0\nrubbish\n")
    seen = []
    with pytest.raises(DataError, match="line 4"):
        for row in read_rows(path):
            seen.append(row)
    assert [watts for _, _, watts in seen] == [1.0, 2.0]
