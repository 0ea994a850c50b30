"""`epi meter watch`: the live feed in a terminal."""

import asyncio
import json
import sys
from typing import Annotated

import typer
import websockets
from rich.live import Live
from rich.table import Table

from meter_bridge.cli.remote import DEFAULT_URL, CaFile, TokenFile, Url, bridge_at
from shared.kernel.errors import AuthError, InfrastructureError
from shared.screen import Screen, say_json
from shared.service.endpoint import Endpoint
from shared.wire.meter_api import LivePower

_BAR_CHARS = 30


def watch(
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    hz: Annotated[float, typer.Option(help="messages a second", min=0.1, max=10)] = 2.0,
    count: Annotated[int, typer.Option(help="end after so many messages; 0 never", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON message a line")] = False,
) -> None:
    """Show the power of every node until Ctrl-C."""
    asyncio.run(_watch(bridge_at(url, token_file, ca_file), hz, count, as_json=as_json or not sys.stdout.isatty()))


async def _watch(bridge: Endpoint, hz: float, count: int, *, as_json: bool) -> None:
    try:
        async with bridge.websocket(f"/v1/live?hz={hz:g}") as socket:
            if as_json:
                await _print(socket, count)
            else:
                await _draw(socket, count)
    except websockets.InvalidStatus as error:
        raise AuthError("the bridge refuses the live feed", where=bridge.url, hint="give --token-file") from error
    except (OSError, websockets.WebSocketException) as error:
        raise InfrastructureError(
            f"the live feed ended: {error}", where=bridge.url, hint="is the bridge running?"
        ) from error


async def _print(socket: websockets.ClientConnection, count: int) -> None:
    seen = 0
    async for message in socket:
        say_json(json.loads(message))
        seen += 1
        if seen == count:
            return


async def _draw(socket: websockets.ClientConnection, count: int) -> None:
    seen, top_w = 0, 1.0
    with Live(console=Screen(), auto_refresh=False) as screen:
        async for message in socket:
            power = LivePower.model_validate_json(message)
            top_w = max([top_w, *(node.max_w for node in power.nodes.values())])
            screen.update(_table(power, top_w), refresh=True)
            seen += 1
            if seen == count:
                return


def _table(power: LivePower, top_w: float) -> Table:
    title = f"{power.cluster_w:.2f} W" + (" (emulated)" if power.emulated else "")
    table = Table("node", "W", "min", "max", "", title=title)
    for name, node in power.nodes.items():
        bar = "#" * round(_BAR_CHARS * max(node.mean_w, 0) / top_w)
        table.add_row(name, f"{node.mean_w:.2f}", f"{node.min_w:.2f}", f"{node.max_w:.2f}", bar.ljust(_BAR_CHARS))
    return table
