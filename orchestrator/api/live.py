"""`WS /v1/live`: power, journal entries and progress as they happen.

A program sends its bearer token; a browser, which cannot, brings a one-shot ticket from `POST /v1/tickets` and must
come from this very origin.
"""

import secrets
import time
from collections.abc import AsyncGenerator
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, WebSocket

from orchestrator.api.models import Ticket
from orchestrator.campaign.live import LiveBroadcaster, LiveMessage
from orchestrator.store.journal import Journal
from shared.files.sqlite import INT64_MAX
from shared.kernel.errors import AuthError
from shared.service.auth import bearer_guard
from shared.service.broadcaster import send_until_gone

LIVE_PATH = "/v1/live"
"""Open for the service's guard: who comes with a ticket has no token."""
_TICKET_S = 30.0
_TICKETS_MAX = 1000
_REPLAY_MAX = 1000
_POLICY_VIOLATION = 1008


class Tickets:
    """One-shot passes, each valid for 30 s."""

    def __init__(self) -> None:
        self._valid_until: dict[str, float] = {}

    def issue(self) -> Ticket:
        """Return a new ticket; expired ones are forgotten."""
        now = time.monotonic()
        self._valid_until = {ticket: until for ticket, until in self._valid_until.items() if until > now}
        if len(self._valid_until) >= _TICKETS_MAX:
            self._valid_until.pop(next(iter(self._valid_until)))
        ticket = secrets.token_urlsafe(24)
        self._valid_until[ticket] = now + _TICKET_S
        return Ticket(ticket=ticket, expires_in_s=_TICKET_S)

    def redeem(self, ticket: str) -> bool:
        """Use a ticket up; False when it is unknown, used or too old."""
        return self._valid_until.pop(ticket, 0.0) > time.monotonic()


def live_router(broadcaster: LiveBroadcaster, journal: Journal, token: str | None) -> APIRouter:
    """Return the ticket endpoint and the live WebSocket, which looks at tickets and tokens itself."""
    router = APIRouter(prefix="/v1", tags=["live"])
    tickets = Tickets()
    guard = bearer_guard(token)

    @router.post("/tickets")
    async def ticket() -> Ticket:
        """Issue a one-shot pass for the live WebSocket."""
        return tickets.issue()

    @router.websocket("/live")
    async def live(
        socket: WebSocket, ticket: str = "", since: Annotated[int | None, Query(ge=0, le=INT64_MAX)] = None
    ) -> None:
        if not _may_enter(socket, ticket):
            await socket.close(_POLICY_VIOLATION, "missing or wrong ticket or token")
            return
        await socket.accept()
        await send_until_gone(socket, _texts(since))

    def _may_enter(socket: WebSocket, ticket: str) -> bool:
        origin = socket.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != socket.headers.get("host"):
            return False
        if ticket:
            return tickets.redeem(ticket)
        try:
            guard(socket)
        except AuthError:
            return False
        return True

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
