"""Telling many watchers what happens, without ever waiting for one: each has a bounded queue and loses its oldest.

Not here: what is told (jobs, power, journal entries), and who may listen.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Generic, TypeVar

from starlette.websockets import WebSocket, WebSocketDisconnect

log = logging.getLogger(__name__)

_GONE = (WebSocketDisconnect, RuntimeError)
"""What starlette raises when the other end has gone."""
_INTERNAL_ERROR = 1011
T = TypeVar("T")
U = TypeVar("U")


class Subscription(Generic[T]):
    """One watcher's messages that it has not fetched yet; iterating waits for the next, without end."""

    def __init__(self, size: int, first: Iterable[T] = ()) -> None:
        self._messages: deque[T] = deque(first, maxlen=size)
        self._ready = asyncio.Event()
        self.dropped = 0
        """How many messages this watcher was too slow for."""

    def put(self, message: T) -> None:
        """Add a message; the oldest goes when the queue is full."""
        if len(self._messages) == self._messages.maxlen:
            self.dropped += 1
        self._messages.append(message)
        self._ready.set()

    async def next(self) -> T:
        """Wait for the next message."""
        while not self._messages:
            self._ready.clear()
            await self._ready.wait()
        return self._messages.popleft()

    def __aiter__(self) -> "Subscription[T]":
        return self

    async def __anext__(self) -> T:
        return await self.next()


class Broadcaster(Generic[T]):
    """Gives each message to every subscription; costs nothing while there are none."""

    def __init__(self, size: int) -> None:
        """`size` is how many messages a watcher may be behind."""
        self._size = size
        self._sinks: set[Callable[[T], None]] = set()

    @property
    def wanted(self) -> bool:
        """Tell whether anybody listens."""
        return bool(self._sinks)

    def publish(self, message: T) -> None:
        """Give a message to every watcher."""
        for sink in self._sinks:
            sink(message)

    @contextmanager
    def subscription(self, first: Iterable[T] = ()) -> Iterator[Subscription[T]]:
        """Give what is published from now on, after the messages `first`."""
        subscription = Subscription(self._size, first)
        with self._listening(subscription.put):
            yield subscription

    @contextmanager
    def subscription_through(self, summarise: Callable[[T], U | None]) -> Iterator[Subscription[U]]:
        """Give what `summarise` makes of the messages: it sees each, and returns None when there is nothing to tell."""
        subscription: Subscription[U] = Subscription(self._size)

        def sink(message: T) -> None:
            if (told := summarise(message)) is not None:
                subscription.put(told)

        with self._listening(sink):
            yield subscription

    @contextmanager
    def _listening(self, sink: Callable[[T], None]) -> Iterator[None]:
        self._sinks.add(sink)
        try:
            yield
        finally:
            self._sinks.discard(sink)


async def send_until_gone(socket: WebSocket, texts: AsyncGenerator[str, None]) -> None:
    """Send texts to an accepted WebSocket until its other end goes; what it says is read and ignored.

    Reading is how the end of a silent client is noticed. When the texts break, that is logged and the socket closed.
    """

    async def send() -> None:
        async with aclosing(texts):
            async for text in texts:
                await socket.send_text(text)

    async def listen() -> None:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass

    sides = (asyncio.create_task(send()), asyncio.create_task(listen()))
    try:
        await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for side in sides:
            side.cancel()
        sent, _ = await asyncio.gather(*sides, return_exceptions=True)
    if isinstance(sent, Exception) and not isinstance(sent, _GONE):
        log.error("the feed %s broke", socket.url.path, exc_info=sent)
        with suppress(*_GONE):
            await socket.close(_INTERNAL_ERROR, "the feed broke; see the log")
