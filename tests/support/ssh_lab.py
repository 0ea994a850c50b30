"""A real sshd on a loopback port with throw-away keys, for the tests of rsync over ssh."""

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import create_connection

from tests.support.node_lab import free_port

_SBIN = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))  # a user's PATH may lack sshd's folder


@dataclass(frozen=True)
class SshServer:
    """Where it listens, and the ssh command that trusts and is trusted by it alone."""

    user_at_host: str
    shell: str


@contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """Start an sshd for this user and end it; its keys live and die with `folder`."""
    sshd = shutil.which("sshd", path=_SBIN)
    assert sshd and shutil.which("ssh"), "sshd is needed; do: sudo apt-get install -y openssh-server openssh-client"
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    if os.getuid() == 0:  # an sshd of root wants this empty folder; systemd would make it
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    log = (folder / "sshd.log").open("wb")
    process = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "sshd.log").read_text()
                time.sleep(0.05)
        yield SshServer(
            user_at_host=f"{getpass.getuser()}@127.0.0.1",
            shell=f"ssh -F none -p {port} -i {folder}/user -o BatchMode=yes -o IdentitiesOnly=yes"
            f" -o StrictHostKeyChecking=yes -o UserKnownHostsFile={folder}/known_hosts",
        )
    finally:
        process.terminate()
        process.wait(20)
        log.close()
