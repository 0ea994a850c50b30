"""The lab's certificates as the controller makes them: they open what they name, stay while they fit, are private."""

import json
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "ansible/roles/lab/files/make_certificates.py"
MACHINES = {
    "node1": ["node1", "10.77.0.11", "127.0.0.1", "localhost"],
    "hub": ["hub", "10.77.0.13", "127.0.0.1", "localhost", "lab.example"],
}


def make(folder: Path, machines: dict[str, list[str]], ca_key: str | None = None) -> list[str]:
    given = json.dumps({"machines": machines, "ca_key": ca_key})
    done = subprocess.run(
        [sys.executable, SCRIPT, folder], input=given, capture_output=True, text=True, timeout=60, check=True
    )
    made: list[str] = json.loads(done.stdout)
    return made


def shakes_hands(folder: Path, machine: str, asked: str, ca: Path) -> bool:
    """Tell whether a client that pins `ca` and asks for `asked` accepts the machine's server."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(ca))
    server.load_cert_chain(folder / f"{machine}.pem", folder / f"{machine}.key")
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=asked),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return len(done) == 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates") / "tls"
    assert make(folder, MACHINES) == ["ca", "node1", "hub"]
    return folder


def test_each_machine_is_who_its_certificate_says_for_those_who_pin_the_ca(made: Path, tmp_path: Path) -> None:
    for machine, names in MACHINES.items():
        assert all(shakes_hands(made, machine, name, made / "ca.pem") for name in names)
    assert not shakes_hands(made, "node1", "10.77.0.13", made / "ca.pem"), "another machine's address"
    make(tmp_path, MACHINES)
    assert not shakes_hands(made, "node1", "10.77.0.11", tmp_path / "ca.pem"), "another lab's CA"


def test_keys_are_private(made: Path) -> None:
    assert made.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in made.glob("*.key")} == {0o600}
    assert len(list(made.iterdir())) == 6, "nothing half is left"


def test_what_fits_stays_and_only_what_does_not_is_made_anew(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    shutil.copytree(made, folder)
    assert make(folder, MACHINES) == []
    moved = {**MACHINES, "node1": ["node1", "10.77.0.99"], "node2": ["node2", "10.77.0.12"]}
    before = (folder / "hub.pem").read_bytes()
    # The CA's key may be encrypted at rest: the playbook gives it in clear.
    clear = (folder / "ca.key").read_text()
    (folder / "ca.key").write_text("$ANSIBLE_VAULT;1.1;AES256\n")
    assert make(folder, moved, clear) == ["node1", "node2"]
    assert (folder / "hub.pem").read_bytes() == before
    assert shakes_hands(folder, "node1", "10.77.0.99", made / "ca.pem")
    (folder / "ca.pem").unlink()
    done = subprocess.run(
        [sys.executable, SCRIPT, folder], input=json.dumps({"machines": moved}), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "missing beside its key" in done.stderr
