"""`epi meter export`: a window of the trace as a file."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from meter_bridge.cli.remote import DEFAULT_URL, Remote, TokenFile, Url, moment_ns, with_bridge
from meter_bridge.export import export as write
from shared.kernel.errors import ConfigurationError
from shared.wire.meter_api import SampleBlock

_PIECE_NS = 600 * 10**9


def export(
    out: Annotated[Path, typer.Argument(help=".csv, .csv.gz or .parquet")],
    start: Annotated[str, typer.Option(help="now, -5min, ISO 8601, or UTC nanoseconds")] = "-5min",
    end: Annotated[str, typer.Option(help="like --start")] = "now",
    calibration: Annotated[str | None, typer.Option(help="`raw` or an id; the newest if absent")] = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Write timestamp, node, watts of a window."""
    start_ns, end_ns = moment_ns(start), moment_ns(end)
    if end_ns <= start_ns:
        raise ConfigurationError("the window ends before it starts", where=f"{start} .. {end}")
    block = with_bridge(url, token_file, lambda bridge: _fetch(bridge, start_ns, end_ns, calibration))
    count = write(block, out)
    emulated = " (emulated)" if block.instrument.emulated else ""
    typer.echo(f"{count} readings of {block.instrument.name}{emulated} written to {out}")


async def _fetch(bridge: Remote, start_ns: int, end_ns: int, calibration: str | None) -> SampleBlock:
    """Fetch a long window in pieces, so that no answer is huge."""
    pieces = []
    with Progress(transient=True) as progress:
        for begin in progress.track(range(start_ns, end_ns, _PIECE_NS), description="fetching"):
            pieces.append(await bridge.samples(begin, min(begin + _PIECE_NS, end_ns), calibration))
    emulated = next((piece.instrument for piece in pieces if piece.instrument.emulated and piece.utc_ns), None)
    filled = [piece for piece in pieces if piece.utc_ns] or pieces[-1:]
    return SampleBlock(
        instrument=emulated or filled[-1].instrument,
        utc_ns=tuple(at for piece in filled for at in piece.utc_ns),
        power_w={
            node: tuple(value for piece in filled for value in piece.power_w[node]) for node in filled[-1].power_w
        },
    )
