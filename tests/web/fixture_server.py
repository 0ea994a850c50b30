"""Serves the dashboard over an invented lab: `python -m tests.web.fixture_server --state running --port 8799`.

A development aid: same addresses, records, token and sessions as the orchestrator, but nothing behind them. `--hurry`
sends an hour of power in a minute, for the test of memory.
"""

import argparse
import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import APIRouter, FastAPI, Query, WebSocket
from fastapi.responses import Response

from orchestrator.api.models import CampaignStatus, CampaignSummary, ConfigurationResult, LabStatus, RunDetail
from orchestrator.campaign.find_channel import FindNodeRequest, FindNodeResult
from orchestrator.campaign.live import LiveMessage
from orchestrator.results.power_view import PowerView
from orchestrator.web.routes import OPEN_PATHS, web_router
from shared.files.kept_sessions import kept_sessions
from shared.kernel.clock import utc_ns
from shared.kernel.errors import ConfigurationError, NotFoundError
from shared.service.broadcaster import send_until_gone
from shared.service.http import make_app
from shared.service.sessions import Sessions
from shared.wire.meter_api import LivePower
from shared.wire.protocol import Health
from shared.wire.session_api import session_router
from tests.web.invented_machines import lab_status, power_at
from tests.web.invented_results import analysis_of, detail_of, file_of, power_of, results_of
from tests.web.states import STATES, InventedLab, S

RATE_HZ = 10


def make_fixture_app(
    state: str, *, token: str, hurry: bool = False, thinks_s: float = 0.0, sessions_file: Path | None = None
) -> FastAPI:
    """Return the app; in a hurry the feed comes as fast as it can, each message stamped 100 ms after the last.

    `thinks_s` is how long it takes to answer a request to pause, resume or cancel.
    """
    lab = InventedLab(state)
    sessions = Sessions(token) if sessions_file is None else kept_sessions(sessions_file, token)
    app = make_app("fixture", "0", token, sessions=sessions, open_paths=OPEN_PATHS)
    app.state.lab = lab
    router = APIRouter(prefix="/v1")

    @router.get("/health")
    async def health() -> Health:
        return Health(service="orchestrator", name="fixture", version="0", utc_ns=utc_ns())

    @router.get("/lab")
    async def get_lab() -> LabStatus:
        return lab_status(lab)

    @router.post("/lab/nodes/{node}/find")
    async def find(node: str, request: FindNodeRequest) -> FindNodeResult:
        if request.by == "led":
            raise ConfigurationError("not available here: this machine has no status LED that a program may blink")
        return FindNodeResult(node=node, by=request.by, sentence=f"The channel of {node} rose by +4.1 W with its load.")

    @router.get("/campaigns")
    async def campaigns() -> list[CampaignSummary]:
        return [lab.summary()] if lab.has_campaign else []

    @router.get("/campaigns/{campaign_id}")
    async def campaign(campaign_id: str) -> CampaignStatus:
        if not lab.has_campaign or campaign_id != lab.spec.id:
            raise NotFoundError("no such campaign", where=campaign_id)
        return lab.status()

    @router.post("/campaigns/{campaign_id}/{what}")
    async def ask(campaign_id: str, what: str) -> CampaignStatus:
        await asyncio.sleep(thinks_s)
        lab.state = {"pause": "pausing", "resume": "running"}.get(what, lab.state)
        return lab.status()

    @router.get("/campaigns/{campaign_id}/results")
    async def results(campaign_id: str) -> list[ConfigurationResult]:
        return results_of(lab)

    @router.get("/campaigns/{campaign_id}/analysis")
    async def analysis(campaign_id: str) -> dict[str, object]:
        return analysis_of()

    @router.get("/campaigns/{campaign_id}/runs/{configuration}/{repetition}")
    async def run(campaign_id: str, configuration: str, repetition: int) -> RunDetail:
        return await asyncio.to_thread(detail_of, lab, configuration, repetition)

    @router.get("/campaigns/{campaign_id}/runs/{configuration}/{repetition}/files/{kind}")
    async def file(campaign_id: str, configuration: str, repetition: int, kind: str) -> Response:
        body = await asyncio.to_thread(file_of, configuration, repetition, kind)
        return Response(body, media_type="text/csv" if kind == "power_trace" else "application/json")

    @router.get("/campaigns/{campaign_id}/runs/{configuration}/{repetition}/power")
    async def run_power(
        campaign_id: str, configuration: str, repetition: int, columns: int,
        start_utc_ns: int | None = None, end_utc_ns: int | None = None,
    ) -> PowerView:  # fmt: skip
        return await asyncio.to_thread(power_of, configuration, repetition, start_utc_ns, end_utc_ns, columns)

    @router.get("/power")
    async def power(seconds: Annotated[float, Query(gt=0, le=600)] = 60.0) -> list[LivePower]:
        now = utc_ns()
        if not lab.metered or hurry:
            return []
        return [power_at(lab, now - (i * S) // RATE_HZ) for i in range(int(seconds * RATE_HZ), 0, -1)]

    @app.websocket("/v1/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        await send_until_gone(socket, texts())

    async def texts() -> AsyncGenerator[str, None]:
        at = utc_ns()
        for i in range(10**9):
            if lab.metered:
                at = at + S // RATE_HZ if hurry else utc_ns()
                yield LiveMessage(type="power", power=power_at(lab, at)).model_dump_json(exclude_none=True)
            if i % 10 == 0 and (progress := lab.progress()) is not None:
                yield LiveMessage(type="progress", progress=progress).model_dump_json(exclude_none=True)
            if not hurry or i % 20 == 0:
                await asyncio.sleep(0 if hurry else 1 / RATE_HZ)

    app.include_router(router)
    app.include_router(session_router(sessions))
    app.include_router(web_router())
    return app


def main() -> None:
    """Serve one state until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", choices=STATES, default="running")
    parser.add_argument("--port", type=int, default=8799)
    parser.add_argument("--token", default="fixture")
    parser.add_argument("--hurry", action="store_true")
    given = parser.parse_args()
    print(f"http://127.0.0.1:{given.port}/#token={given.token}")
    uvicorn.run(
        make_fixture_app(given.state, token=given.token, hurry=given.hurry),
        host="127.0.0.1",
        port=given.port,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
