"""How the commands reach the bridge: options and a client shared by all of them."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from shared.kernel.errors import ConfigurationError
from shared.service.auth import load_token
from shared.service.endpoint import Endpoint
from shared.service.tls import CA_VARIABLE, lab_ca
from shared.wire.client import AgentClient
from shared.wire.meter_api import MeterStatus, SampleBlock

T = TypeVar("T")

Url = Annotated[str, typer.Option(help="where the bridge answers", envvar="EPI_METER_URL")]
TokenFile = Annotated[Path | None, typer.Option(help="file with the bridge's token", envvar="EPI_METER_TOKEN_FILE")]
CaFile = Annotated[
    Path | None,
    typer.Option(help="the lab's own CA, pinned; for an https --url", envvar=["EPI_METER_CA_FILE", CA_VARIABLE]),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
DEFAULT_URL = "http://127.0.0.1:8801"
_AGO = re.compile(r"^-(\d+(?:\.\d+)?)(s|min|h|d)$")
_UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class Remote:
    """The bridge at one address."""

    def __init__(self, client: AgentClient) -> None:
        self.client = client

    async def status(self) -> MeterStatus:
        """Ask how the meter is."""
        return await self.client.request_as(MeterStatus, "GET", "/v1/meter", patient=False)

    async def samples(self, start_utc_ns: int, end_utc_ns: int, calibration: str | None = None) -> SampleBlock:
        """Ask for the samples of a window."""
        params = {"start_utc_ns": start_utc_ns, "end_utc_ns": end_utc_ns}
        query = params if calibration is None else {**params, "calibration": calibration}
        return await self.client.request_as(SampleBlock, "GET", "/v1/samples", params=query)


def bridge_at(url: str, token_file: Path | None, ca_file: Path | None) -> Endpoint:
    """Return where the bridge is, from the options that every command has.

    Raises:
        ConfigurationError: the token file cannot be read.
    """
    return Endpoint(url, load_token(token_file), lab_ca(ca_file))


def with_bridge(at: Endpoint, act: Callable[[Remote], Awaitable[T]]) -> T:
    """Run `act` with a connection to the bridge and close it."""

    async def run() -> T:
        client = AgentClient(at.url, at.token, timeout_s=120, ca_file=at.ca_file)
        try:
            return await act(Remote(client))
        finally:
            await client.close()

    return asyncio.run(run())


def moment_ns(text: str) -> int:
    """Return UTC nanoseconds of `now`, `-5min`, an ISO 8601 time (UTC unless it says otherwise) or nanoseconds.

    Raises:
        ConfigurationError: it is none of them.
    """
    if text == "now":
        return time.time_ns()
    if match := _AGO.match(text):
        return time.time_ns() - round(float(match[1]) * _UNITS_S[match[2]] * 1e9)
    if text.isdigit() and len(text) > 15:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            "not a time", where=text, hint="write now, -90s, -5min, -2h, 2026-01-31T12:00:00 or UTC nanoseconds"
        ) from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e9)
