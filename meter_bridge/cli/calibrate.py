"""`epi meter calibrate`: known loads against the raw channels, guided or from a CSV."""

import csv
import math
import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Table

from meter_bridge.cli.remote import DEFAULT_URL, AsJson, CaFile, Remote, TokenFile, Url, bridge_at, with_bridge
from meter_bridge.instrument.calibration import FEWEST_LOADS, CalibrationDraft, CalibrationRecord, LoadPoint
from shared.bars import progress_bar
from shared.kernel.defects import first_defect, reason_of
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.numbers import decimal
from shared.kernel.regular_files import SETTINGS_BYTES, open_regular_text
from shared.screen import Screen, say, say_json
from shared.service.endpoint import Endpoint

_STEADY = 0.02
"""A load whose readings scatter more than this share of their mean was not steady."""


def calibrate(
    reference: Annotated[str, typer.Option(help="the reference meter: maker, type, serial number")],
    reference_percent: Annotated[float, typer.Option(help="its standard uncertainty in percent", min=0.001, max=5)],
    node: Annotated[list[str] | None, typer.Option(help="guide through these nodes; repeat")] = None,
    from_csv: Annotated[Path | None, typer.Option(help="columns node,reference_w,measured_w")] = None,
    loads: Annotated[int, typer.Option(help="known loads for each node", min=FEWEST_LOADS)] = FEWEST_LOADS,
    seconds: Annotated[float, typer.Option(help="how long each load is averaged", min=1)] = 20.0,
    note: Annotated[str, typer.Option(help="kept in the record")] = "",
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Fit gain and offset of each channel and put them in force; nonsense is refused.

    Guided: switch each load on as asked, wait until it is steady, type what the reference shows. Use resistive loads
    spread over 3 to 50 W. If the lead runs several times through the CT, type the load's power times the turns.
    """
    if (from_csv is None) == (not node):
        raise ConfigurationError("give either --node or --from-csv", hint="--node node1 --node node2, or a CSV file")
    at = bridge_at(url, token_file, ca_file)
    points = read_points(from_csv) if from_csv is not None else _guided(node or [], loads, seconds, at)
    try:
        draft = CalibrationDraft(
            reference=reference, reference_relative_uncertainty=reference_percent / 100, points=tuple(points), note=note
        )
    except ValidationError as error:
        first = first_defect(error)
        raise DataError(first.reason, where=first.field) from error

    async def send(bridge: Remote) -> CalibrationRecord:
        body = draft.model_dump(mode="json")
        return await bridge.client.request_as(CalibrationRecord, "POST", "/v1/calibrations", json=body, patient=False)

    record = with_bridge(at, send)
    if as_json:
        say_json(record.model_dump(mode="json"), indent=2)
    else:
        Screen().print(_table(record))


def read_points(path: Path) -> list[LoadPoint]:
    """Read known loads from a CSV with columns node, reference_w, measured_w and optionally measured_uncertainty_w.

    Raises:
        DataError: unreadable, a column is missing, or a value is no number; the line is named.
    """
    points = []
    try:
        with open_regular_text(path, SETTINGS_BYTES, newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    points.append(LoadPoint.model_validate(_numbers(row)))
                except ValueError as error:
                    raise DataError(reason_of(error), where=f"{path}, line {number}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    return points


def _numbers(row: dict[str, str]) -> dict[str, str | float]:
    """Return the fields that a row has, all but the node as numbers."""
    given = {key: value for key, value in row.items() if value != ""}
    found: dict[str, str | float] = {}
    for key, value in given.items():
        try:
            found[key] = value if key == "node" or not isinstance(value, str) else decimal(value.strip(), math.inf)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    return found


def _guided(nodes: list[str], loads: int, seconds: float, at: Endpoint) -> list[LoadPoint]:
    points = []
    for node in nodes:
        say(f"\n{node}: {loads} known resistive loads, spread over 3 to 50 W, one after the other.")
        done = 0
        while done < loads:
            reference_w = typer.prompt(f"{node}, load {done + 1} of {loads}: watts on the reference meter", type=float)
            mean_w, scatter_w, count = _measure(node, seconds, at)
            if scatter_w > max(_STEADY * abs(mean_w), 0.1):
                say(f"  not steady: {mean_w:.3f} +- {scatter_w:.3f} W; once more, please")
                continue
            say(f"  the channel shows {mean_w:.3f} W (scatter {scatter_w:.3f} W, {count} samples)")
            points.append(
                LoadPoint(
                    node=node, reference_w=reference_w, measured_w=mean_w,
                    measured_uncertainty_w=scatter_w / math.sqrt(count),
                )
            )  # fmt: skip
            done += 1
    return points


def _measure(node: str, seconds: float, at: Endpoint) -> tuple[float, float, int]:
    """Average the raw channel over `seconds` from now; return mean, scatter and the number of samples."""
    start_ns = time.time_ns()
    with progress_bar(f"averaging {node}") as publish:
        steps = round(seconds * 5)
        for step in range(steps):
            publish(step / steps, f"{seconds - 0.2 * step:.0f} s left")
            time.sleep(0.2)
    end_ns = time.time_ns()
    block = with_bridge(at, lambda bridge: bridge.samples(start_ns, end_ns, "raw"))
    if node not in block.power_w:
        raise ConfigurationError("no channel is of this node", where=node, hint=", ".join(block.power_w))
    values = [value for value in block.power_w[node] if value is not None]
    if len(values) < 2:
        raise DataError("the meter sent no samples meanwhile", where=node, hint="epi meter status")
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)), len(values)


def _table(record: CalibrationRecord) -> Table:
    table = Table("node", "gain", "offset W", "residual rms W", "worst W", "range W", title=f"{record.id} is in force")
    for channel in record.channels:
        table.add_row(
            channel.node, f"{channel.gain:.5f} +- {channel.gain_uncertainty:.5f}",
            f"{channel.offset_w:+.3f} +- {channel.offset_uncertainty_w:.3f}", f"{channel.residual_rms_w:.3f}",
            f"{channel.residual_max_w:.3f}", f"{channel.lowest_w:g} .. {channel.highest_w:g}",
        )  # fmt: skip
    return table
