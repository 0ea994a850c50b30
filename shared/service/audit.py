"""The audit log: who asked a service to change something, and who was refused; one JSON line each, files rotated.

Reading is not logged: agents must not touch the disk because somebody looks at them inside a measurement window.
"""

import json
import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.kernel.clock import iso_utc, utc_ns

_MAX_BYTES = 5_000_000
_FILES = 5
_REFUSED = frozenset({401, 403, 429})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class AuditLog:
    """ASGI middleware around one service."""

    def __init__(self, app: ASGIApp, path: Path) -> None:
        self._app = app
        path.parent.mkdir(parents=True, exist_ok=True)
        self._log = logging.Logger(f"audit:{path}")
        self._log.addHandler(RotatingFileHandler(path, maxBytes=_MAX_BYTES, backupCount=_FILES, delay=True))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note it when it changed something or was refused."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                if scope["method"] not in _READING or status in _REFUSED:
                    client = scope.get("client")
                    self._log.info(
                        json.dumps(
                            {
                                "timestamp_utc": iso_utc(utc_ns()),
                                "client": client[0] if client else None,
                                "method": scope["method"],
                                "path": scope["path"],
                                "status": status,
                            }
                        )
                    )
            await send(message)

        await self._app(scope, receive, noting)
