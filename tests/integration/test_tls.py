"""TLS with a pinned CA, and the audit log, on a real daemon: the meter bridge with no meter attached."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.kernel.errors import AuthError, ConfigurationError, InfrastructureError
from shared.wire.client import AgentClient

TOKEN = "t" * 32


def openssl(*arguments: str, cwd: Path) -> None:
    assert shutil.which("openssl"), "openssl is needed; do: sudo apt-get install -y openssl"
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a CA, a server certificate for 127.0.0.1 signed by it, and a stranger's CA."""
    folder = tmp_path_factory.mktemp("tls")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "stranger"):
        openssl(
            "req", "-x509", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj",
            f"/CN=epi {name}", "-addext", "keyUsage=critical,keyCertSign", cwd=folder,
        )  # fmt: skip
    openssl("req", *new_key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=meter", cwd=folder)
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(
        "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
        "-extfile", "ext", "-out", "server.pem", cwd=folder,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    (folder / "token").write_text(TOKEN)
    (folder / "bridge.toml").write_text(
        f"""
        name = "meter"
        port = {port}
        token_file = "{folder}/token"
        state_dir = "{folder}/state"
        tls_cert = "{folder}/server.pem"
        tls_key = "{folder}/server.key"
        channels = ["node1"]
        [source]
        device = "{folder}/no-such-tty"
        """
    )
    command = [sys.executable, "-m", "meter_bridge", "--config", str(folder / "bridge.toml")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as bridge:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"https://127.0.0.1:{port}"
        bridge.terminate()


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
