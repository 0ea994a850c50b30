"""`WS /v1/live`: power, journal entries and progress as they happen.

Who may listen, the guard has decided: a program with its bearer token, a signed-in browser from this very origin.
"""

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Query, WebSocket

from orchestrator.campaign.live import LiveBroadcaster, LiveMessage
from orchestrator.store.journal import Journal
from shared.files.sqlite import INT64_MAX
from shared.service.broadcaster import send_until_gone

_REPLAY_MAX = 1000


def live_router(broadcaster: LiveBroadcaster, journal: Journal) -> APIRouter:
    """Return the live WebSocket."""
    router = APIRouter(prefix="/v1", tags=["live"])

    @router.websocket("/live")
    async def live(socket: WebSocket, since: Annotated[int | None, Query(ge=0, le=INT64_MAX)] = None) -> None:
        await socket.accept()
        await send_until_gone(socket, _texts(since))

    async def _texts(since: int | None) -> AsyncGenerator[str, None]:
        """Yield what was missed since the entry `since`, then what comes; an entry is sent once."""
        with broadcaster.subscription() as upcoming:
            sent = since or 0
            if since is not None:
                for entry in await journal.entries(since, _REPLAY_MAX):
                    yield LiveMessage(type="entry", entry=entry).model_dump_json(exclude_none=True)
                    sent = entry.seq
            if broadcaster.progress is not None:
                yield LiveMessage(type="progress", progress=broadcaster.progress).model_dump_json(exclude_none=True)
            async for message in upcoming:
                if message.entry is None or message.entry.seq > sent:
                    yield message.model_dump_json(exclude_none=True)

    return router
