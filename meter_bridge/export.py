"""Writes a sample block to a file: CSV, or Parquet with the instrument in its metadata.

Not here: queries and calibration (`answers`).
"""

import gzip
import io
from pathlib import Path
from typing import IO

from meter_bridge.sample_blocks import csv_lines
from shared.files.atomic import atomic_write
from shared.kernel.errors import ConfigurationError
from shared.wire.meter_api import SampleBlock


def export(block: SampleBlock, path: Path) -> int:
    """Write by the suffix of `path` (.csv, .csv.gz, .parquet) and return the number of readings written.

    The file appears whole or not at all.

    Raises:
        ConfigurationError: another suffix, or Parquet without pyarrow.
    """
    if path.name.endswith((".csv", ".csv.gz")):
        write = _csv_gz if path.suffix == ".gz" else _csv
    elif path.suffix == ".parquet":
        write = _parquet
    else:
        raise ConfigurationError("unknown kind of file", where=str(path), hint="use .csv, .csv.gz or .parquet")
    with atomic_write(path) as beside:
        return write(block, beside)


def _csv(block: SampleBlock, path: Path) -> int:
    with path.open("w", encoding="utf-8") as file:
        return _write_lines(block, file)


def _csv_gz(block: SampleBlock, path: Path) -> int:
    """Compress without name and time: equal samples give equal bytes."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8") as file,
    ):
        return _write_lines(block, file)


def _write_lines(block: SampleBlock, file: IO[str]) -> int:
    """Write the header and a line a reading; return the number of readings."""
    count = -1
    for line in csv_lines(block):
        file.write(line)
        count += 1
    return count


def _parquet(block: SampleBlock, path: Path) -> int:
    """Write columns timestamp (UTC ns), node (dictionary), watts (float64)."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigurationError(
            "Parquet needs pyarrow", where=str(path), hint="pip install 'epi-factory[meter-parquet]'"
        ) from error
    rows = [
        (at, node, value)
        for index, at in enumerate(block.utc_ns)
        for node, values in block.power_w.items()
        if (value := values[index]) is not None
    ]
    times, nodes, watts = zip(*rows, strict=True) if rows else ((), (), ())
    table = pa.table(
        {
            "timestamp": pa.array(times, type=pa.timestamp("ns", tz="UTC")),
            "node": pa.array(nodes, type=pa.string()).dictionary_encode(),
            "watts": pa.array(watts, type=pa.float64()),
        }
    )
    pq.write_table(table.replace_schema_metadata({"epi_instrument": block.instrument.model_dump_json()}), path)
    return len(rows)
