"""TLS with a pinned CA, and the audit log, on a real daemon: the meter bridge with no meter attached."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.kernel.errors import AuthError, ConfigurationError, InfrastructureError
from shared.wire.client import AgentClient
from tests.support.bridge_daemon import TOKEN, bridge_daemon
from tests.support.certificates import make_certificates


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    tls = f'tls_cert = "{folder}/server.pem"\ntls_key = "{folder}/server.key"'
    with bridge_daemon(folder, tls) as bridge:
        yield f"https://127.0.0.1:{bridge.port}"


async def test_the_pinned_ca_is_trusted_and_no_other(url: str, folder: Path) -> None:
    client = AgentClient(url, TOKEN, ca_file=folder / "ca.pem")
    assert (await client.health()).service == "meter_bridge"
    await client.close()
    for ca_file in (folder / "stranger.pem", None):
        stranger = AgentClient(url, TOKEN, ca_file=ca_file)
        with pytest.raises(InfrastructureError, match="does not answer"):
            await stranger.health(patient=False)
        await stranger.close()


async def test_changes_and_refusals_are_in_the_audit_log_and_reading_is_not(url: str, folder: Path) -> None:
    owner, thief = (AgentClient(url, token, ca_file=folder / "ca.pem") for token in (TOKEN, "wrong"))
    await owner.health()
    with pytest.raises(AuthError):
        await thief.health()
    with pytest.raises(ConfigurationError, match="Not Found"):
        await owner.request("POST", "/v1/nothing", patient=False)
    for client in (owner, thief):
        await client.close()
    lines = [json.loads(line) for line in (folder / "state" / "audit.jsonl").read_text().splitlines()]
    noted = [(line["method"], line["path"], line["status"]) for line in lines]
    assert ("GET", "/v1/health", 401) in noted
    assert ("POST", "/v1/nothing", 404) in noted
    assert all(method != "GET" or status == 401 for method, _, status in noted)
