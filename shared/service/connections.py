"""What a connection may hold before it has asked for anything, and for how long: slow clients cost nobody else.

uvicorn has a time-out for idle kept connections and none for a request that never gets whole, and its limit of
connections refuses the owner with everybody else. Here a request's head has to come in time, an answer has to be
fetched in time, and when there are too many connections, the one makes room that has been here longest without a
request that the guard let in.
Not here: bodies (`shared.service.bodies`), who may ask (`shared.service.guard`).
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 256
LET_IN = "epi.let_in"
"""Key of the scope of a request that the guard let in: its connection makes room for nobody while it is answered."""
HEAD_S = 10.0
"""From connecting, or from the answer before, to the last line of a request's head."""
IDLE_S = 5
"""How long a connection without a byte of another request is kept."""
STALL_S = 30.0
"""How long a client may leave an answer lying that no longer fits into the buffers."""
LINGER_S = 5.0
"""How long the rest of a refused body is thrown away, and how long a closed connection may take to be flushed."""
MAX_THROWN_AWAY_BYTES = 65 << 20
"""As much as anybody may send who has the right token: who has a wrong one by mistake reads why it was refused."""
MAX_HEAD_BYTES = 16 * 1024


class BoundedConnection(H11Protocol):
    """One HTTP/1.1 connection with time-outs, in a table of at most `MAX_CONNECTIONS`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle_since = self.loop.time()
        """When it was connected, or when the last answer was complete."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._thrown_away = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; make room if there are too many who wait."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > MAX_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        for name in list(self._timers):
            self._disarm(name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._is_thrown_away():
            self._thrown_away += len(data)
            if self._thrown_away > MAX_THROWN_AWAY_BYTES:
                self.transport.abort()
                return
        super().data_received(data)
        self._look()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over: WebSockets have their own pings."""
        self._disarm("head")
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of this one, or for the end."""
        super().on_response_complete()
        if self.transport.is_closing() or self._is_thrown_away():
            self._arm("linger", LINGER_S, self.transport.abort)
        elif self._is_answering():  # the next request was in the buffer already
            self._look()
        else:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, and do not wait for ever for that to be read."""
        super().send_400_response(msg)
        self._arm("linger", LINGER_S, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that nobody uses."""
        super().timeout_keep_alive_handler()
        self._arm("linger", LINGER_S, self.transport.abort)

    def pause_writing(self) -> None:
        """Give the client some time to fetch its answer."""
        super().pause_writing()
        self._arm("stall", STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that the answer is being fetched."""
        self._disarm("stall")
        super().resume_writing()

    @property
    def address(self) -> str:
        """Who is at the other end."""
        return self.client[0] if self.client else ""

    @property
    def makes_room(self) -> bool:
        """Tell whether it may be ended for another: nothing is being answered here that the guard let in."""
        return not self._is_answering() or LET_IN not in self.cycle.scope

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_thrown_away(self) -> bool:
        """Tell whether the answer is given while the request's body still comes."""
        return self.cycle is not None and self.cycle.response_complete and self.conn.their_state is h11.SEND_BODY

    def _look(self) -> None:
        if self._is_answering():
            self._thrown_away = 0
            self._disarm("head")
            self._disarm("linger")
        elif "linger" in self._timers and not self._is_thrown_away() and not self.transport.is_closing():
            self._disarm("linger")
            self._wait()

    def _wait(self) -> None:
        self.idle_since = self.loop.time()
        self._arm("head", HEAD_S, self.transport.abort)

    def _make_room(self) -> None:
        """End the connection that has been idle longest, of the address that has most of them."""
        idle = [other for other in self.connections if isinstance(other, BoundedConnection) and other.makes_room]
        n_of = Counter(other.address for other in idle)
        victim = max(idle, key=lambda other: (n_of[other.address], -other.idle_since))
        self.connections.discard(victim)
        victim.transport.abort()

    def _arm(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        self._disarm(name)
        self._timers[name] = self.loop.call_later(seconds, action)

    def _disarm(self, name: str) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()


class BoundedLoop(asyncio.SelectorEventLoop):
    """An event loop whose servers do not wait a minute for a TLS handshake: it is not a connection yet, above."""

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:
        """Listen, see `asyncio.loop.create_server`."""
        if kwargs.get("ssl") is not None:
            kwargs.setdefault("ssl_handshake_timeout", HEAD_S)
            kwargs.setdefault("ssl_shutdown_timeout", LINGER_S)
        return await super().create_server(*args, **kwargs)
