"""Writes a window of the trace to a file, piece by piece: CSV, or Parquet with the instrument in its metadata.

Not here: queries and calibration (`sample_pieces`).
"""

import gzip
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from shared.files.atomic import atomic_write
from shared.files.trace_csv import TraceCsvWriter
from shared.kernel.errors import BugError, ConfigurationError
from shared.wire.meter_api import SamplePiece, WindowSummary

_ROW_GROUP = 1_000_000


class _Sink(Protocol):
    """A file that takes pieces."""

    readings: int

    def add(self, piece: SamplePiece) -> None:
        """Append the readings of a piece."""


async def export(pieces: AsyncIterator[SamplePiece], path: Path) -> tuple[int, WindowSummary]:
    """Write by the suffix of `path` (.csv, .csv.gz, .parquet); return the number of readings and what measured.

    The file appears whole or not at all.

    Raises:
        ConfigurationError: another suffix, or Parquet without pyarrow.
    """
    opened = _kind_of(path)
    window: WindowSummary | None = None
    with atomic_write(path) as beside, opened(beside) as sink:
        async for piece in pieces:
            sink.add(piece)
            window = piece.window or window
    if window is None:
        raise BugError("a window ended without its summary", where=str(path))
    return sink.readings, window


def _kind_of(path: Path) -> Callable[[Path], AbstractContextManager[_Sink]]:
    if path.name.endswith(".csv"):
        return _csv
    if path.name.endswith(".csv.gz"):
        return _csv_gz
    if path.suffix == ".parquet":
        return _parquet
    raise ConfigurationError("unknown kind of file", where=str(path), hint="use .csv, .csv.gz or .parquet")


class _Csv:
    """Appends pieces to a trace CSV."""

    def __init__(self, writer: TraceCsvWriter) -> None:
        self._writer = writer
        self.readings = 0

    def add(self, piece: SamplePiece) -> None:
        """Append the readings of a piece."""
        self._writer.add(piece.utc_ns, piece.power_w)
        self.readings = self._writer.readings


@contextmanager
def _csv(path: Path) -> Iterator[_Csv]:
    with path.open("wb") as file:
        yield _Csv(TraceCsvWriter(file))


@contextmanager
def _csv_gz(path: Path) -> Iterator[_Csv]:
    """Compress without name and time: equal samples give equal bytes."""
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
        yield _Csv(TraceCsvWriter(file))


@contextmanager
def _parquet(path: Path) -> Iterator["_Parquet"]:
    """Write columns timestamp (UTC ns), node (dictionary), watts (float64), with the instrument in the metadata.

    What measured is known when the last piece has come, and the metadata stand first: hence the file beside.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigurationError(
            "Parquet needs pyarrow", where=str(path), hint="pip install 'epi-factory[meter-parquet]'"
        ) from error
    schema = pa.schema(
        {
            "timestamp": pa.timestamp("ns", tz="UTC"),
            "node": pa.dictionary(pa.int32(), pa.string()),
            "watts": pa.float64(),
        }
    )
    with tempfile.TemporaryFile(dir=path.parent) as beside:
        with pq.ParquetWriter(beside, schema) as writer:
            sink = _Parquet(lambda columns: writer.write_table(pa.table(columns, schema=schema)))
            yield sink
        described = schema.with_metadata({"epi_instrument": sink.instrument_json})
        with pq.ParquetFile(beside) as pieces, pq.ParquetWriter(path, described) as writer:
            for batch in pieces.iter_batches(_ROW_GROUP):
                writer.write_table(
                    pa.Table.from_batches([batch]).cast(schema).replace_schema_metadata(described.metadata)
                )


class _Parquet:
    """Appends pieces to a Parquet file by `write`, which takes columns."""

    def __init__(self, write: Callable[[dict[str, list[Any]]], None]) -> None:
        self._write = write
        self.readings = 0
        self.instrument_json = ""

    def add(self, piece: SamplePiece) -> None:
        """Append the readings of a piece."""
        rows = [
            (at, node, watts)
            for at, *powers in zip(piece.utc_ns, *piece.power_w.values(), strict=True)
            for node, watts in zip(piece.power_w, powers, strict=True)
            if watts is not None
        ]
        times, nodes, watts = zip(*rows, strict=True) if rows else ((), (), ())
        self._write({"timestamp": list(times), "node": list(nodes), "watts": list(watts)})
        self.readings += len(rows)
        if piece.window is not None:
            self.instrument_json = piece.window.instrument.model_dump_json()
