"""A small synchronous client of the orchestrator's API for the commands, and where to find that API."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
from websockets.exceptions import WebSocketException

from orchestrator.local.layout import LocalLab
from shared.files.atomic import atomic_write
from shared.kernel.errors import ConfigurationError, InfrastructureError
from shared.service.auth import load_token
from shared.service.endpoint import Endpoint, ask_sync
from shared.service.reply import read_reply_sync
from shared.service.tls import lab_ca


class Api:
    """The orchestrator at `url`."""

    def __init__(self, url: str, token: str | None, ca_file: Path | None = None) -> None:
        self.url = url.rstrip("/")
        self._endpoint = Endpoint(self.url, token, ca_file)

    def call(self, method: str, path: str, body: object | None = None) -> Any:
        """Send a request and return the JSON answer.

        Raises:
            EpiError: the orchestrator's own error, or InfrastructureError when it cannot be reached.
        """
        try:
            with self._endpoint.sync_client() as client:
                return ask_sync(client, method, path, json=body).json()
        except httpx.TransportError as error:
            raise InfrastructureError(
                f"the orchestrator does not answer: {error}", where=self.url, hint="`epi up` starts a lab"
            ) from error

    def download(self, path: str, target: Path) -> int:
        """Bring a file and return its size; it appears whole or not at all.

        Raises:
            EpiError: the orchestrator's own error, or InfrastructureError when it cannot be reached.
        """
        try:
            plain = {"Accept-Encoding": "identity"}
            with self._endpoint.sync_client(timeout_s=300) as http, http.stream("GET", path, headers=plain) as reply:
                if not reply.is_success:
                    read_reply_sync(reply, within_s=30).json()  # raises what went wrong
                with atomic_write(target) as beside, beside.open("wb") as file:
                    for chunk in reply.iter_raw():
                        file.write(chunk)
        except httpx.TransportError as error:
            raise InfrastructureError(f"the download broke: {error}", where=self.url) from error
        except OSError as error:
            raise ConfigurationError(f"cannot write the file: {error.strerror}", where=str(target)) from error
        return target.stat().st_size

    def live(self, since: int | None = None) -> Generator[dict[str, Any], None, None]:
        """Yield live messages until the connection ends.

        Raises:
            InfrastructureError: the feed cannot be opened or broke.
        """
        try:
            with self._endpoint.sync_websocket("/v1/live" + ("" if since is None else f"?since={since}")) as socket:
                for message in socket:
                    yield json.loads(message)
        except (OSError, WebSocketException) as error:
            raise InfrastructureError(f"the live feed broke: {error}", where=self.url) from error


def sign_in_link(api: Api) -> str:
    """Return the dashboard's address with a code that opens it once: browsers keep addresses, so no token is in one.

    Raises:
        EpiError: as `Api.call`.
    """
    code = api.call("POST", "/v1/session/codes")["code"]
    return f"{api.url}/#code={code}" if code else f"{api.url}/"


def find_api(out: Path, url: str | None, token_file: Path | None, ca_file: Path | None = None) -> Api:
    """Return the API at `url` (https: the lab's CA is pinned), or that of the one-machine lab under `out`.

    Raises:
        ConfigurationError: neither is there.
    """
    if url is not None:
        return Api(url, load_token(token_file), lab_ca(ca_file))
    lab = LocalLab(out.resolve())
    if not lab.config_file("orchestrator").exists():
        raise ConfigurationError(
            "no lab was ever started there", where=str(out), hint="`epi up` starts one; for another machine give --url"
        )
    return Api(lab.url("orchestrator"), lab.token("orchestrator"))
