"""The Telegram bot: notices out, a closed set of commands in, by long polling (it works behind NAT).

Only the chats named in the settings are answered; everybody else is ignored, and the attempt is logged.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from telegram import Update
from telegram.error import TelegramError
from telegram.ext import Application, CommandHandler, ContextTypes, MessageHandler, filters

from orchestrator.campaign.service import CampaignService
from orchestrator.campaign.spec_library import SpecLibrary
from orchestrator.notify.commands import HELP, answer
from orchestrator.notify.lost import LostNotices
from orchestrator.notify.notices import Notice
from orchestrator.settings import TelegramSettings
from shared.kernel.errors import EpiError
from shared.service.health import HealthRegistry

log = logging.getLogger(__name__)

_QUEUE = 100
_COMMANDS = ("start", "help", "campaigns", "status", "run", "pause", "resume", "cancel", "summary")


class TelegramBot:
    """One bot for one lab."""

    def __init__(
        self, settings: TelegramSettings, token: str, service: CampaignService, library: SpecLibrary,
        health: HealthRegistry,
    ) -> None:  # fmt: skip
        self.name = "the Telegram bot"
        self._lost = LostNotices(self.name, health)
        self._settings = settings
        self._service = service
        self._library = library
        self._queue: asyncio.Queue[Notice] = asyncio.Queue(_QUEUE)
        self._application = (
            Application.builder()
            .token(token)
            .base_url(f"{settings.api_url}/bot")
            .base_file_url(f"{settings.api_url}/file/bot")
            .build()
        )
        allowed = filters.Chat(chat_id=list(settings.chat_ids))
        for command in _COMMANDS:
            self._application.add_handler(CommandHandler(command, self._handler(command), filters=allowed))
        self._application.add_handler(MessageHandler(filters.ALL & ~allowed, self._stranger))
        self._application.add_handler(MessageHandler(filters.ALL & allowed, self._handler("help")))

    def offer(self, notice: Notice) -> None:
        """Queue a notice if its kind is wanted; the oldest is dropped when the queue is full."""
        if notice.kind not in self._settings.kinds:
            return
        if self._queue.full():
            self._lost.lost(self._queue.get_nowait(), "Telegram is too slow")
        self._queue.put_nowait(notice)

    async def run(self) -> None:
        """Poll for commands and send notices until cancelled; a lost network is waited out by the library."""
        async with self._application:
            updater = self._application.updater
            assert updater is not None
            await self._application.start()
            await updater.start_polling(timeout=30, bootstrap_retries=-1, drop_pending_updates=True)
            try:
                while True:
                    await self._send(await self._queue.get())
            finally:
                await updater.stop()
                await self._application.stop()

    async def _send(self, notice: Notice) -> None:
        failed = ""
        for chat in self._settings.chat_ids:
            try:
                await self._application.bot.send_message(chat, notice.text)
            except TelegramError as error:
                log.warning("telegram chat %s: %s", chat, error)
                failed = f"chat {chat}: {type(error).__name__}"
        if failed:
            self._lost.lost(notice, failed)
        else:
            self._lost.delivered()

    def _handler(self, command: str) -> Callable[[Update, ContextTypes.DEFAULT_TYPE], Coroutine[Any, Any, None]]:
        async def handle(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
            if update.effective_message is None:
                return
            try:
                text = await answer(self._service, self._library, command, context.args or [])
            except EpiError as error:
                text = str(error)
            await update.effective_message.reply_text(text or HELP)

        return handle

    async def _stranger(self, update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
        chat = update.effective_chat
        log.warning("telegram: ignored chat %s", None if chat is None else chat.id)
