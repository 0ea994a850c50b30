"""Notifications: a signed webhook verified by its receiver, and the real bot library against a local Bot API."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from standardwebhooks.webhooks import Webhook

from orchestrator.campaign.lab import Lab
from orchestrator.campaign.live import LiveBroadcaster
from orchestrator.campaign.service import CampaignService
from orchestrator.campaign.spec_library import SpecLibrary
from orchestrator.notify.dispatcher import start_notifying
from orchestrator.notify.lost import LostNotices
from orchestrator.notify.notices import Notice
from orchestrator.notify.webhook import WebhookSender
from orchestrator.settings import NotifySettings, OrchestratorSettings, TelegramSettings, WebhookSettings
from orchestrator.store.journal import open_journal
from shared.kernel.settings import AgentAddress
from shared.service.background import BackgroundTasks
from shared.service.health import HealthRegistry

SECRET = base64.b64encode(b"a secret of twenty-four b").decode()
CHAT, STRANGER = 7, 8
SPEC = """
id = "replaced"
model = "m"
corpus = "c"
configurations = "baseline"
repetitions = 1
[tasks]
mmlu_5shot = "a"
arc_challenge_25shot = "b"
hellaswag_10shot = "c"
"""


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def service_in(folder: Path) -> AsyncIterator[CampaignService]:
    """Give a campaign service whose campaigns are never run: nobody asks it to."""
    away = AgentAddress(name="away", url="http://127.0.0.1:9")
    settings = OrchestratorSettings(
        name="orchestrator", port=1, state_dir=folder, results_dir=folder, nodes=(away,), surgeon=away, meter=away,
        workload_prompts=folder / "none",
    )  # fmt: skip
    lab = Lab(settings)
    async with open_journal(folder / "journal.sqlite") as journal:
        yield CampaignService(journal, lab, LiveBroadcaster())
    await lab.close()


@pytest.fixture
def library(tmp_path: Path) -> SpecLibrary:
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "paper.toml").write_text(SPEC)
    return SpecLibrary(folder)


async def test_a_webhook_is_signed_and_repeated_until_accepted(tmp_path: Path, library: SpecLibrary) -> None:
    app = FastAPI()
    accepted: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    refused = 0

    @app.post("/hook")
    async def hook(request: Request) -> dict[str, str]:
        nonlocal refused
        if refused < 1:
            refused += 1
            raise RuntimeError("not now")
        body = await request.body()
        accepted.put_nowait(Webhook(SECRET).verify(body, dict(request.headers)))
        return {}

    (tmp_path / "secret").write_text(SECRET)
    async with serving(app) as url, service_in(tmp_path) as service:
        webhook = WebhookSettings(url=f"{url}/hook", secret_file=tmp_path / "secret")
        health = HealthRegistry()
        async with BackgroundTasks(health) as background:
            start_notifying(NotifySettings(webhooks=(webhook,)), service, library, background, health)
            await service.create(library.load("paper", "camp"))
            async with asyncio.timeout(20):
                notice = await accepted.get()
    assert refused == 1
    assert (notice["kind"], notice["campaign"], notice["text"]) == ("started", "camp", "camp is running")


async def problem(health: HealthRegistry, begins: str) -> str:
    while not (found := [text for text in health.problems() if text.startswith(begins)]):
        await asyncio.sleep(0.01)
    return found[0]


async def test_what_was_given_up_is_a_health_problem_until_a_notice_gets_through(tmp_path: Path) -> None:
    app = FastAPI()
    answers = True

    @app.post("/hook/very-secret")
    async def hook(request: Request) -> dict[str, str]:
        if not answers:
            raise RuntimeError("not now")
        return {}

    (tmp_path / "secret").write_text(SECRET)
    health = HealthRegistry()
    async with serving(app) as url, asyncio.timeout(20):
        webhook = WebhookSettings(url=f"{url}/hook/very-secret", secret_file=tmp_path / "secret")
        sender = WebhookSender(webhook, health, retry_s=(0.01, 0.01))
        async with BackgroundTasks(health) as background:
            background.start(sender.name, sender.run, failing=False)
            answers = False
            for number in (1, 2):
                sender.offer(notice(number))
            text = await problem(health, "the webhook to 127.0.0.1: 2 notices were given up (HTTP 500), the last at ")
            assert "camp 2 is running" in text and "very-secret" not in text
            assert health.status == "degraded"
            answers = True
            sender.offer(notice(3))
            while health.problems():
                await asyncio.sleep(0.01)


async def test_what_was_given_up_long_ago_is_no_problem_any_more() -> None:
    health = HealthRegistry()
    lost = LostNotices("the webhook to x", health, remembered_s=0.05)
    lost.lost(notice(1), "HTTP 500")
    assert len(health.problems()) == 1
    async with asyncio.timeout(5):
        while health.problems():
            await asyncio.sleep(0.01)


async def test_notices_that_wait_too_long_are_named(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    health = HealthRegistry()
    sender = WebhookSender(WebhookSettings(url="http://127.0.0.1:9/x", secret_file=tmp_path / "secret"), health)
    for number in range(1002):
        sender.offer(notice(number))
    assert "2 notices were given up (the receiver is too slow)" in health.problems()[0]


def notice(number: int) -> Notice:
    return Notice(
        seq=number, timestamp_utc="2026-01-31T12:00:00Z", kind="started", campaign="camp",
        text=f"camp {number} is running",
    )  # fmt: skip


class BotApi:
    """The part of the Telegram Bot API that the bot uses: updates are handed out once, messages are kept."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.updates: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        self._next = 1
        self.refuses = False
        self.app.post("/bot{token}/{method}")(self._call)

    def say(self, chat: int, text: str) -> None:
        entities = [{"type": "bot_command", "offset": 0, "length": len(text.split()[0])}]
        message = {
            "message_id": self._next, "date": 1, "chat": {"id": chat, "type": "private"}, "text": text,
            "from": {"id": chat, "is_bot": False, "first_name": "A"}, "entities": entities,
        }  # fmt: skip
        self.updates.put_nowait({"update_id": self._next, "message": message})
        self._next += 1

    async def _call(self, token: str, method: str, request: Request) -> Any:
        form = dict(await request.form())
        result: Any = True
        if method == "getMe":
            result = {"id": 1, "is_bot": True, "first_name": "epi", "username": "epi_bot"}
        elif method == "getUpdates":
            result = []
            with suppress(TimeoutError):
                result.append(await asyncio.wait_for(self.updates.get(), 0.5))
        elif method == "sendMessage" and self.refuses:
            said = {"ok": False, "error_code": 403, "description": "Forbidden: bot was blocked by the user"}
            return JSONResponse(said, status_code=403)
        elif method == "sendMessage":
            chat, text = int(str(form["chat_id"])), str(form["text"])
            self.sent.put_nowait((chat, text))
            result = {"message_id": 1000, "date": 1, "chat": {"id": chat, "type": "private"}, "text": text}
        return {"ok": True, "result": result}


async def test_the_bot_starts_pauses_and_reports_and_ignores_strangers(tmp_path: Path, library: SpecLibrary) -> None:
    api = BotApi()
    (tmp_path / "bot-token").write_text("123:abc")
    async with serving(api.app) as url, service_in(tmp_path) as service:
        telegram = TelegramSettings(token_file=tmp_path / "bot-token", chat_ids=(CHAT,), api_url=url)
        health = HealthRegistry()
        async with BackgroundTasks(health) as background, asyncio.timeout(30):
            start_notifying(NotifySettings(telegram=telegram), service, library, background, health)
            api.say(STRANGER, "/run paper")
            api.say(CHAT, "/status")
            assert await api.sent.get() == (CHAT, "there is no campaign yet (/run SPEC starts one)")
            api.say(CHAT, "/run nothing")
            assert "no such campaign spec" in (await api.sent.get())[1]
            api.say(CHAT, "/run paper")
            said = {(await api.sent.get())[1] for _ in range(2)}
            assert any(text.endswith("is running") for text in said)
            assert any("started: 1 runs" in text for text in said)
            api.say(CHAT, "/pause")
            assert "will pause after the present run" in (await api.sent.get())[1]
            api.say(CHAT, "/summary")
            assert "nothing measured yet" in (await api.sent.get())[1]
            campaigns = await service.journal.campaigns()
            assert [(one.state, one.request) for one in campaigns] == [("running", "pause")]
            assert not health.problems()
            api.refuses = True
            await service.create(library.load("paper", "second"))
            await problem(health, "the Telegram bot: a notice was given up (chat 7: ")
            api.refuses = False
            await service.create(library.load("paper", "third"))
            while health.problems():
                await asyncio.sleep(0.01)
