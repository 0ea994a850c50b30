"""The audit log: who asked a service to change something, and who was refused; one JSON line each, files rotated.

Reading is not logged: agents must not touch the disk because somebody looks at them inside a measurement window. Of the
refusals of one address at most 20 a minute are noted, so that nobody can wash the log away.
"""

import json
import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.kernel.clock import iso_utc, utc_ns
from shared.service.auth import FailureLimiter

_MAX_BYTES = 5_000_000
_FILES = 5
_REFUSED = frozenset({401, 403, 429})
_MAX_PATH = 200
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class AuditLog:
    """ASGI middleware around one service."""

    def __init__(self, app: ASGIApp, path: Path) -> None:
        self._app = app
        self._refused = FailureLimiter()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._log = logging.Logger(f"audit:{path}")
        self._file = RotatingFileHandler(path, maxBytes=_MAX_BYTES, backupCount=_FILES, delay=True)
        self._log.addHandler(self._file)

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        self._file.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note it when it changed something or was refused."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(scope, message["status"])
            await send(message)

        await self._app(scope, receive, noting)

    def _note(self, scope: Scope, status: int) -> None:
        client = scope["client"][0] if scope.get("client") else None
        if status in _REFUSED:
            if self._refused.blocked(str(client)):
                return
            self._refused.failed(str(client))
        elif scope["method"] in _READING:
            return
        self._log.info(
            json.dumps(
                {
                    "timestamp_utc": iso_utc(utc_ns()),
                    "client": client,
                    "method": scope["method"],
                    "path": scope["path"][:_MAX_PATH],
                    "status": status,
                }
            )
        )
