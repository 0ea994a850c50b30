"""The broadcaster: order, bounds, slow watchers, summaries; and a WebSocket whose feed breaks."""

import asyncio
import logging
from collections.abc import AsyncGenerator

import pytest
import uvicorn
import websockets
from fastapi import FastAPI, WebSocket

from shared.service.broadcaster import Broadcaster, send_until_gone


async def test_each_watcher_gets_everything_in_order_and_the_slow_one_loses_its_oldest() -> None:
    feed: Broadcaster[int] = Broadcaster(4)
    feed.publish(0)  # nobody listens: nothing is kept
    with feed.subscription(first=[-2, -1]) as late, feed.subscription() as quick:
        heard = []
        for number in range(1, 7):
            feed.publish(number)
            heard.append(await quick.next())
        assert heard == [1, 2, 3, 4, 5, 6] and quick.dropped == 0
        assert [await late.next() for _ in range(4)] == [3, 4, 5, 6] and late.dropped == 4
        waiting = asyncio.create_task(late.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        feed.publish(7)
        assert await waiting == 7
    assert not feed.wanted


async def test_a_summary_sees_every_message_and_tells_what_it_likes() -> None:
    feed: Broadcaster[int] = Broadcaster(10)
    total = 0

    def every_third(number: int) -> str | None:
        nonlocal total
        total += number
        return f"sum {total}" if number % 3 == 0 else None

    with feed.subscription_through(every_third) as told:
        for number in range(1, 7):
            feed.publish(number)
        assert [await told.next(), await told.next()] == ["sum 6", "sum 21"]


async def test_a_feed_that_breaks_closes_its_socket_and_one_that_is_left_ends(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    feed: Broadcaster[str] = Broadcaster(10)
    ended = asyncio.Event()

    async def texts() -> AsyncGenerator[str, None]:
        try:
            with feed.subscription() as subscription:
                async for text in subscription:
                    if text == "break":
                        raise ValueError("the reader of the feed has a defect")
                    yield text
        finally:
            ended.set()

    @app.websocket("/feed")
    async def serve(socket: WebSocket) -> None:
        await socket.accept()
        await send_until_gone(socket, texts())

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        while not server.started:
            await asyncio.sleep(0.01)
        url = f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/feed"
        async with websockets.connect(url) as socket:
            while not feed.wanted:
                await asyncio.sleep(0.01)
            await socket.send("whatever a client says is ignored")
            feed.publish("hello")
            assert await socket.recv() == "hello"
        await ended.wait()
        assert not feed.wanted
        with caplog.at_level(logging.ERROR):
            async with websockets.connect(url) as socket:
                while not feed.wanted:
                    await asyncio.sleep(0.01)
                feed.publish("break")
                with pytest.raises(websockets.ConnectionClosedError) as closed:
                    await socket.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1011
        assert "the feed /feed broke" in caplog.text and "has a defect" in caplog.text
        server.should_exit = True
        await serving
