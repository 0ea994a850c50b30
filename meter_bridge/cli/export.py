"""`epi meter export`: a window of the trace as a file."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer

from meter_bridge.cli.remote import DEFAULT_URL, CaFile, Remote, TokenFile, Url, bridge_at, moment_ns, with_bridge
from meter_bridge.export import export as write
from shared.bars import progress_bar
from shared.kernel.errors import ConfigurationError
from shared.screen import say
from shared.wire.meter_api import SamplePiece, WindowSummary
from shared.wire.meter_client import sample_pieces


def export(
    out: Annotated[Path, typer.Argument(help=".csv, .csv.gz or .parquet")],
    start: Annotated[str, typer.Option(help="now, -5min, ISO 8601, or UTC nanoseconds")] = "-5min",
    end: Annotated[str, typer.Option(help="like --start")] = "now",
    calibration: Annotated[str | None, typer.Option(help="`raw` or an id; the newest if absent")] = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Write timestamp, node, watts of a window."""
    start_ns, end_ns = moment_ns(start), moment_ns(end)
    if end_ns <= start_ns:
        raise ConfigurationError("the window ends before it starts", where=f"{start} .. {end}")
    at = bridge_at(url, token_file, ca_file)
    count, window = with_bridge(at, lambda bridge: _export(bridge, start_ns, end_ns, calibration, out))
    emulated = " (emulated)" if window.instrument.emulated else ""
    say(f"{count} readings of {window.instrument.name}{emulated} written to {out}")


async def _export(
    bridge: Remote, start_ns: int, end_ns: int, calibration: str | None, out: Path
) -> tuple[int, WindowSummary]:
    """Write the window piece by piece, showing how far it is."""
    with progress_bar("fetching") as publish:

        async def shown() -> AsyncIterator[SamplePiece]:
            async for piece in sample_pieces(bridge.client, start_ns, end_ns, calibration):
                yield piece
                if piece.utc_ns:
                    publish((piece.utc_ns[-1] - start_ns) / (end_ns - start_ns), "")

        return await write(shown(), out)
