"""TLS with a pinned CA, and the audit log, on real daemons: a meter bridge with no meter, and who asks it."""

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.api.lab import LabView
from orchestrator.campaign.lab import Lab
from orchestrator.settings import OrchestratorSettings
from shared.kernel.errors import AuthError, ConfigurationError, InfrastructureError
from shared.kernel.settings import AgentAddress
from shared.service.endpoint import Endpoint
from shared.service.health import HealthRegistry
from shared.wire.client import AgentClient
from shared.wire.health_api import health_of
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


@pytest.mark.parametrize(("ca", "is_reached"), [("ca", True), ("stranger", False)])
async def test_the_orchestrator_reaches_an_agent_whose_ca_it_pins(
    url: str, folder: Path, tmp_path: Path, ca: str, is_reached: bool
) -> None:
    """Over REST, and by the live feed of power, which it relays."""
    away = AgentAddress(name="away", url="http://127.0.0.1:9")
    settings = OrchestratorSettings(
        name="orchestrator", port=1, state_dir=tmp_path / "state", results_dir=tmp_path, nodes=(away,),
        surgeon=away.model_copy(update={"name": "surgeon"}), workload_prompts=tmp_path / "prompts.txt",
        meter=AgentAddress(name="meter", url=url, token_file=folder / "token", ca_file=folder / f"{ca}.pem"),
    )  # fmt: skip
    lab = Lab(settings)
    try:
        own = health_of("orchestrator", "orchestrator", HealthRegistry())
        seen = {agent.name: agent for agent in (await LabView(lab, lambda: own).status()).agents}
    finally:
        await lab.close()
    assert (seen["meter"].error is None) is is_reached
    bridge = Endpoint.of(settings.meter)
    feed = bridge.websocket("/v1/live?hz=1")
    if is_reached:
        async with feed as socket:
            await (await socket.ping())
    else:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with feed:
                pass
