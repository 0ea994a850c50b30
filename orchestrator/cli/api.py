"""A small synchronous client of the orchestrator's API for the commands, and where to find that API."""

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from orchestrator.local.layout import LocalLab
from shared.files.atomic import atomic_write
from shared.kernel.errors import ConfigurationError, EpiError, ErrorPayload, InfrastructureError, from_payload
from shared.service.auth import load_token
from shared.service.tls import pinned, system_trust


class Api:
    """The orchestrator at `url`."""

    def __init__(self, url: str, token: str | None, ca_file: Path | None = None) -> None:
        self.url = url.rstrip("/")
        self._tls = pinned(ca_file)
        self._verify = self._tls or system_trust()
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def call(self, method: str, path: str, body: object | None = None) -> Any:
        """Send a request and return the JSON answer.

        Raises:
            EpiError: the orchestrator's own error, or InfrastructureError when it cannot be reached.
        """
        try:
            response = httpx.request(
                method, self.url + path, headers=self._headers, json=body, timeout=30, verify=self._verify
            )
        except httpx.TransportError as error:
            raise InfrastructureError(
                f"the orchestrator does not answer: {error}", where=self.url, hint="`epi up` starts a lab"
            ) from error
        if response.is_success:
            return response.json()
        raise _error_of(response, path)

    def download(self, path: str, target: Path) -> int:
        """Bring a file and return its size; it appears whole or not at all.

        Raises:
            EpiError: the orchestrator's own error, or InfrastructureError when it cannot be reached.
        """
        try:
            url = self.url + path
            with httpx.stream("GET", url, headers=self._headers, timeout=300, verify=self._verify) as response:
                if not response.is_success:
                    response.read()
                    raise _error_of(response, path)
                with atomic_write(target) as beside, beside.open("wb") as file:
                    for chunk in response.iter_bytes():
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
        url = self.url.replace("http", "ws", 1) + "/v1/live" + ("" if since is None else f"?since={since}")
        try:
            with connect(url, additional_headers=self._headers, ssl=self._tls) as socket:
                for message in socket:
                    yield json.loads(message)
        except (OSError, WebSocketException) as error:
            raise InfrastructureError(f"the live feed broke: {error}", where=url) from error


def _error_of(response: httpx.Response, path: str) -> EpiError:
    try:
        return from_payload(ErrorPayload.model_validate(response.json()["error"]))
    except (ValueError, KeyError, TypeError):
        return InfrastructureError(f"HTTP {response.status_code}: {response.text[:200]}", where=path)


def find_api(out: Path, url: str | None, token_file: Path | None) -> Api:
    """Return the API at `url` (https: the CA in `EPI_CA_FILE` is pinned), or that of the one-machine lab under `out`.

    Raises:
        ConfigurationError: neither is there.
    """
    if url is not None:
        ca_file = os.environ.get("EPI_CA_FILE")
        return Api(url, load_token(token_file), Path(ca_file) if ca_file else None)
    lab = LocalLab(out.resolve())
    if not lab.config_file("orchestrator").exists():
        raise ConfigurationError(
            "no lab was ever started there", where=str(out), hint="`epi up` starts one; for another machine give --url"
        )
    return Api(lab.url("orchestrator"), lab.token("orchestrator"))
