"""Smart plugs over HTTP: Shelly (first and second generation) and Tasmota. AC, but slow and of their own accuracy.

Answers as in the makers' API documentation: Shelly Gen1 `/meter/0`, Gen2 `/rpc/Switch.GetStatus?id=0`, Tasmota
`/cm?cmnd=Status%208`.
"""

import asyncio
import math
from typing import Any, ClassVar, Literal

import httpx
from pydantic import Field

from meter_bridge.protocol.frames import NAN, Hello
from meter_bridge.protocol.limits import beyond
from meter_bridge.sources.base import Source, SourceSettings
from meter_bridge.sources.polled import PolledSource, Reading
from shared.kernel.clock import monotonic_ns
from shared.kernel.errors import DataError, InfrastructureError
from shared.kernel.records import Record
from shared.service.endpoint import Endpoint, ask

_MAX_REPLY_BYTES = 64 << 10
"""A plug's whole status has 1 or 2 KB."""
Dialect = Literal["shelly1", "shelly2", "tasmota"]
PATHS: dict[Dialect, str] = {
    "shelly1": "/meter/0",
    "shelly2": "/rpc/Switch.GetStatus?id=0",
    "tasmota": "/cm?cmnd=Status%208",
}


class PlugAddress(Record):
    """One plug, one channel."""

    url: str = Field(pattern=r"^https?://[^\s/]+$")
    dialect: Dialect

    @property
    def shown(self) -> str:
        """The address as it may be told: a password before the host stays here."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"


class PlugReader:
    """Asks all plugs at once; one that does not answer makes its channel invalid, all make the meter dead."""

    def __init__(self, plugs: tuple[PlugAddress, ...], rate_hz: float) -> None:
        self._plugs = plugs
        self._rate_hz = rate_hz
        self._patience_s = max(1.0, 1 / rate_hz)
        self._client: httpx.AsyncClient | None = None

    @property
    def hello(self) -> Hello:
        """What it is."""
        return Hello(
            "smart plugs", "smart_plug", len(self._plugs), self._rate_hz,
            measurement_point="AC inlet of each node by a smart plug (uncalibrated, averaged by the plug)",
        )  # fmt: skip

    async def open(self) -> None:
        """Make the client."""
        self._client = Endpoint("").client(timeout_s=self._patience_s)

    async def read(self) -> Reading | None:
        """Return the power of every plug."""
        answers = await asyncio.gather(*(self._ask(plug) for plug in self._plugs), return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        for error in failed:
            if not isinstance(error, DataError | InfrastructureError):
                raise error
        if len(failed) == len(answers):
            raise failed[0]
        return Reading(
            tuple(NAN if isinstance(answer, BaseException) else answer for answer in answers), monotonic_ns()
        )

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _ask(self, plug: PlugAddress) -> float:
        if self._client is None:
            raise InfrastructureError("the plug is not open", where=plug.shown)
        try:
            url = plug.url + PATHS[plug.dialect]
            reply = await ask(self._client, "GET", url, max_bytes=_MAX_REPLY_BYTES, within_s=self._patience_s)
        except httpx.TransportError as error:
            raise InfrastructureError(f"the plug does not answer: {type(error).__name__}", where=plug.shown) from error
        if reply.status != 200:
            raise InfrastructureError(f"the plug answered HTTP {reply.status}", where=plug.shown)
        try:
            return power_of(plug.dialect, reply.json())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"no power in the answer of a {plug.dialect} plug: {error}"
            raise DataError(what, where=plug.shown) from error


def power_of(dialect: Dialect, answer: Any) -> float:
    """Return watts from a plug's JSON; raises KeyError, TypeError, ValueError or AttributeError when there are none."""
    if dialect == "shelly1":
        if answer.get("is_valid") is False:
            raise ValueError("the plug calls its own reading invalid")
        return _watts(answer["power"])
    if dialect == "shelly2":
        return _watts(answer["apower"])
    return _watts(answer["StatusSNS"]["ENERGY"]["Power"])


def _watts(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a power that is no number")
    if (reason := beyond("W", value)) is not None or math.isnan(value):
        raise ValueError(reason or "W is NaN")
    return float(value)


class PlugSettings(SourceSettings):
    """Smart plugs, one a channel."""

    kind: ClassVar[str] = "plugs"

    plugs: tuple[PlugAddress, ...] = Field(min_length=1)
    rate_hz: float = Field(default=1.0, ge=0.01, le=5)

    @property
    def offered_channels(self) -> int:
        """One a plug."""
        return len(self.plugs)

    def make(self, channels: int) -> Source:
        """Return the source."""
        return PolledSource(PlugReader(self.plugs, self.rate_hz))


SOURCE = PlugSettings
