"""REST and WebSocket of the bridge; the records are `shared.wire.meter_api`."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, WebSocket
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from meter_bridge.bridge import Bridge
from meter_bridge.instrument.budget import Budget, budget
from meter_bridge.instrument.calibration import CalibrationDraft, CalibrationRecord
from meter_bridge.live import MAX_HZ, Aggregator
from meter_bridge.sample_blocks import FrameBlock
from meter_bridge.sample_pieces import LONGEST_PIECE_SAMPLES, PIECE_SAMPLES
from meter_bridge.settings import BridgeSettings
from meter_bridge.trace.maintenance import MaintenanceRequest, MaintenanceResult
from shared.files.sqlite import INT64_MAX
from shared.files.trace_csv import TRACE_HEADER, trace_lines
from shared.kernel.build import software_build
from shared.kernel.errors import ConfigurationError
from shared.service.broadcaster import send_until_gone
from shared.service.http import make_app
from shared.wire.health_api import health_router
from shared.wire.meter_api import FoundChannel, MarkerRun, MeterStatus, SampleBlock, SamplePiece, TraceEvent

LONGEST_WINDOW_NS = 24 * 3600 * 1_000_000_000
LONGEST_FRAMES_NS = 3600 * 1_000_000_000

Start = Annotated[int, Query(ge=0, le=INT64_MAX, description="UTC nanoseconds, included")]
Calibration = Annotated[str | None, Query(max_length=32, description="`raw`, or the id of a version; newest if absent")]
End = Annotated[int, Query(ge=0, le=INT64_MAX, description="UTC nanoseconds, not included")]

Cursor = Annotated[str | None, Query(max_length=20_000, description="`next` of the piece before; the first if absent")]
PieceLimit = Annotated[int, Query(ge=1, le=LONGEST_PIECE_SAMPLES, description="most samples of the piece")]


class CsvResponse(StreamingResponse):
    """Comma-separated values, sent while they are written."""

    media_type = "text/csv"


def build_app(settings: BridgeSettings, token: str | None) -> FastAPI:
    """Return the service of a bridge, which runs as long as the service does."""
    bridge = Bridge(settings)
    app = make_app("EPI Factory meter bridge", str(software_build()), token)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with bridge.running():
            yield

    app.router.lifespan_context = lifespan
    app.include_router(health_router("meter_bridge", bridge.settings.name, bridge.health))
    app.include_router(_rest(bridge))
    app.include_router(_care(bridge))
    app.include_router(_live(bridge))
    return app


def _window(start_utc_ns: int, end_utc_ns: int, longest_ns: int | None = LONGEST_WINDOW_NS) -> None:
    if end_utc_ns <= start_utc_ns:
        raise ConfigurationError("the window ends before it starts", where="end_utc_ns")
    if longest_ns is not None and end_utc_ns - start_utc_ns > longest_ns:
        raise ConfigurationError(
            f"the window is longer than {longest_ns / 3.6e12:g} h", where="end_utc_ns",
            hint="ask for it in pieces: /v1/samples/piece",
        )  # fmt: skip


async def _large(record: BaseModel) -> Response:
    """Return a large record as JSON, written in a thread: the loop must be there for the meter's next line."""
    return Response(await asyncio.to_thread(record.model_dump_json), media_type="application/json")


async def _csv(bridge: Bridge, start_utc_ns: int, end_utc_ns: int, piece: SamplePiece) -> AsyncIterator[str]:
    """Yield a trace piece by piece, so that a window of weeks needs no more memory than a piece."""
    yield f"{TRACE_HEADER}\n"
    while True:
        yield "".join(await asyncio.to_thread(trace_lines, piece.utc_ns, piece.power_w))
        if piece.next is None:
            return
        piece = await bridge.sample_piece(start_utc_ns, end_utc_ns, cursor=piece.next)


def _rest(bridge: Bridge) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.get("/meter")
    async def meter() -> MeterStatus:
        """Say how the meter is and how well it speaks."""
        return bridge.status()

    @router.get("/samples", response_model=SampleBlock)
    async def samples(start_utc_ns: Start, end_utc_ns: End, calibration: Calibration = None) -> Response:
        """Return the samples of a half-open window."""
        _window(start_utc_ns, end_utc_ns)
        return await _large(await bridge.samples(start_utc_ns, end_utc_ns, calibration))

    @router.get("/samples/piece", response_model=SamplePiece)
    async def sample_piece(
        start_utc_ns: Start, end_utc_ns: End, calibration: Calibration = None, cursor: Cursor = None,
        limit: PieceLimit = PIECE_SAMPLES,
    ) -> Response:  # fmt: skip
        """Return a piece of a half-open window of any length; its `next` is the cursor of the next piece.

        All pieces are of what was stored when the first was asked for. `calibration` counts for the first.
        """
        _window(start_utc_ns, end_utc_ns, None)
        return await _large(await bridge.sample_piece(start_utc_ns, end_utc_ns, calibration, cursor, limit))

    @router.get("/frames", response_model=FrameBlock)
    async def frames(start_utc_ns: Start, end_utc_ns: End) -> Response:
        """Return everything stored of the frames of a half-open window of at most an hour, raw."""
        _window(start_utc_ns, end_utc_ns, LONGEST_FRAMES_NS)
        return await _large(await bridge.frames(start_utc_ns, end_utc_ns))

    @router.get("/events")
    async def events(start_utc_ns: Start, end_utc_ns: End) -> list[TraceEvent]:
        """Return what happened to the trace in a half-open window, at most the first 10,000."""
        _window(start_utc_ns, end_utc_ns)
        return await bridge.events(start_utc_ns, end_utc_ns)

    @router.get("/trace.csv", response_class=CsvResponse)
    async def trace(start_utc_ns: Start, end_utc_ns: End, calibration: Calibration = None) -> CsvResponse:
        """Return the samples of a half-open window of any length as CSV."""
        _window(start_utc_ns, end_utc_ns, None)
        first = await bridge.sample_piece(start_utc_ns, end_utc_ns, calibration)
        return CsvResponse(_csv(bridge, start_utc_ns, end_utc_ns, first))

    return router


def _care(bridge: Bridge) -> APIRouter:
    """Return the endpoints that look after the instrument: calibration, budget, maintenance."""
    router = APIRouter(prefix="/v1")

    @router.get("/calibrations")
    async def calibrations() -> list[CalibrationRecord]:
        """List all versions, oldest first; the last is in force."""
        return list(bridge.calibrations.records)

    @router.post("/calibrations")
    async def calibrate(draft: CalibrationDraft) -> CalibrationRecord:
        """Fit known loads and put the result in force; nonsense is refused."""
        return bridge.calibrate(draft)

    @router.get("/budget")
    async def uncertainty(power_w: Annotated[float, Query(gt=0, le=1e5)]) -> list[Budget]:
        """Return the uncertainty budget of each channel at one power."""
        known = bridge.settings.instrument
        return [
            budget(node, power_w, known.accuracy, bridge.calibrations.newest, known.relative_uncertainty)
            for node in bridge.settings.channels
        ]

    @router.post("/identify", include_in_schema=False)  # its former name
    @router.post("/find_channel")
    async def find_channel(marker: MarkerRun) -> FoundChannel:
        """Say whose channel rose with the marker load of one node."""
        return await bridge.find_channel(marker)

    @router.post("/maintenance")
    async def maintenance(request: MaintenanceRequest) -> MaintenanceResult:
        """Delete or slim old samples and give the space back."""
        return await bridge.maintain(keep_days=request.keep_days, compact_days=request.compact_days)

    return router


def _live(bridge: Bridge) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.websocket("/live")
    async def live(socket: WebSocket, hz: float = MAX_HZ) -> None:
        """Send aggregates, at most `hz` a second (0.1 to 10)."""
        await socket.accept()
        await send_until_gone(socket, _texts(bridge, min(max(hz, 0.1), MAX_HZ)))

    return router


async def _texts(bridge: Bridge, hz: float) -> AsyncGenerator[str, None]:
    aggregator = Aggregator(bridge.settings.channels, hz)
    with bridge.broadcaster.subscription_through(aggregator) as messages:
        async for message in messages:
            yield message.model_dump_json()
