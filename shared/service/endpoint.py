"""Where a service is and what opens it: the one place that makes HTTP clients and WebSocket connections.

Token, pinned CA, timeouts and limits are the same for whoever asks. Not here: what is asked (`shared.wire.client`).
"""

import asyncio
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import httpx
import websockets
from websockets.sync.client import ClientConnection as SyncConnection
from websockets.sync.client import connect as connect_sync

from shared.kernel.settings import AgentAddress
from shared.service.auth import load_token
from shared.service.reply import ACCEPTED, MAX_REPLY_BYTES, Reply, not_whole, read_reply, read_reply_sync
from shared.service.tls import pinned, system_trust

WHOLE_REPLY_S: Final = 600.0
"""A reply may take this long however slowly it drips; each connect and read has the client's own timeout."""
_MESSAGE_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Endpoint:
    """A service at `url` (for example `http://127.0.0.1:8701`); without `ca_file` the system's CAs are trusted."""

    url: str
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @classmethod
    def of(cls, address: AgentAddress) -> Self:
        """Return the endpoint that settings name.

        Raises:
            ConfigurationError: its token file cannot be read.
        """
        token = load_token(address.token_file) if address.token_file else None
        return cls(address.url, token, address.ca_file)

    @property
    def headers(self) -> dict[str, str]:
        """What opens the service."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def client(self, *, timeout_s: float = 30.0, follow_redirects: bool = False) -> httpx.AsyncClient:
        """Return a client of this service; `timeout_s` is for each connect, read and write."""
        return httpx.AsyncClient(**self._settings(timeout_s, follow_redirects))

    def sync_client(self, *, timeout_s: float = 30.0) -> httpx.Client:
        """Return a synchronous client of this service."""
        return httpx.Client(**self._settings(timeout_s, False))

    def _settings(self, timeout_s: float, follow_redirects: bool) -> dict[str, Any]:
        return {
            "base_url": self.url, "headers": {**self.headers, "Accept-Encoding": ACCEPTED}, "timeout": timeout_s,
            "verify": pinned(self.ca_file) or system_trust(), "follow_redirects": follow_redirects,
        }  # fmt: skip

    def websocket(self, path: str, *, max_bytes: int = _MESSAGE_BYTES) -> websockets.connect:
        """Return a connection to be entered; a message may have `max_bytes`, decoded."""
        return websockets.connect(
            self._socket_url(path), additional_headers=self.headers, max_size=max_bytes, ssl=self._socket_tls()
        )

    def sync_websocket(self, path: str, *, max_bytes: int = _MESSAGE_BYTES) -> SyncConnection:
        """Return an open connection, synchronous."""
        return connect_sync(
            self._socket_url(path), additional_headers=self.headers, max_size=max_bytes, ssl=self._socket_tls()
        )

    def _socket_url(self, path: str) -> str:
        return self.url.rstrip("/").replace("http", "ws", 1) + path

    def _socket_tls(self) -> ssl.SSLContext | None:
        return pinned(self.ca_file) if self.url.startswith("https:") else None


async def ask(
    client: httpx.AsyncClient, method: str, url: str, *, max_bytes: int = MAX_REPLY_BYTES,
    within_s: float = WHOLE_REPLY_S, **request: Any,
) -> Reply:  # fmt: skip
    """Send one request and return its whole reply, whatever its status.

    Args:
        client: of `Endpoint.client`.
        method: of HTTP.
        url: absolute, or a path below the client's endpoint.
        max_bytes: of the body, decoded.
        within_s: for connecting, asking and reading together, however slowly the other side drips.
        request: what httpx takes: json, params, content, headers.

    Raises:
        DataError: the body is larger than `max_bytes`, or damaged.
        InfrastructureError: the reply is not whole after `within_s`.
        httpx.TransportError: the other side cannot be reached, or the connection broke.
    """
    try:
        async with asyncio.timeout(within_s), client.stream(method, url, **request) as response:
            return await read_reply(response, max_bytes=max_bytes)
    except TimeoutError as error:
        raise not_whole(within_s, f"{method} {client.base_url.join(url)}") from error


def ask_sync(
    client: httpx.Client, method: str, url: str, *, max_bytes: int = MAX_REPLY_BYTES,
    within_s: float = WHOLE_REPLY_S, **request: Any,
) -> Reply:  # fmt: skip
    """As `ask`, synchronous; `within_s` is for the body."""
    with client.stream(method, url, **request) as response:
        return read_reply_sync(response, max_bytes=max_bytes, within_s=within_s)
