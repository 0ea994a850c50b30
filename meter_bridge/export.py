"""Writes a sample block to a file: CSV, or Parquet with the instrument in its metadata.

Not here: queries and calibration (`answers`).
"""

import gzip
import os
from pathlib import Path

from meter_bridge.sample_blocks import csv_lines
from shared.kernel.errors import ConfigurationError
from shared.wire.meter_api import SampleBlock


def export(block: SampleBlock, path: Path) -> int:
    """Write by the suffix of `path` (.csv, .csv.gz, .parquet) and return the number of readings written.

    The file appears whole or not at all.

    Raises:
        ConfigurationError: another suffix, or Parquet without pyarrow.
    """
    fresh = path.with_name(path.name + ".part")
    try:
        if path.name.endswith((".csv", ".csv.gz")):
            count = _csv(block, fresh, compressed=path.suffix == ".gz")
        elif path.suffix == ".parquet":
            count = _parquet(block, fresh)
        else:
            raise ConfigurationError("unknown kind of file", where=str(path), hint="use .csv, .csv.gz or .parquet")
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return count


def _csv(block: SampleBlock, path: Path, *, compressed: bool) -> int:
    count = -1
    with gzip.open(path, "wt", encoding="utf-8") if compressed else path.open("w", encoding="utf-8") as file:
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
