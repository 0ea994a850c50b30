"""Throw-away Debian machines for the provisioning tests: an overlay over one base system each, booted with systemd.

They live in a network namespace of their own, without any way out; what they install is mounted read-only (supplies).
Root is needed.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.provision.supplies import Supplies, run

ROOT = Path(__file__).parents[2]
TOOLS = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container", "ip": "iproute2", "ssh": "openssh-client"}
UNLISTED = (
    "/proc", "/sys", "/dev", "/run", "/tmp", "/srv", "/media", "/var/log", "/var/tmp", "/var/backups", "/root/.ansible",
    "/var/lib/apt", "/var/cache/apt", "/var/lib/dpkg/*-old", "/var/lib/ucf/*.[0-9]", "*/__pycache__",
)  # fmt: skip
"""What is no part of an installation: other file systems, logs, the books of apt, ucf and Ansible, compiled Python."""
CPUFREQ = "/sys/devices/system/cpu/cpufreq"
_NETWORK = "10.77.0"


def missing_tools() -> list[str]:
    """Return the Debian packages that are missing on this machine."""
    return sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})


@dataclass(frozen=True)
class Machine:
    """One booted machine."""

    name: str
    address: str
    root: Path
    ssh: tuple[str, ...]

    def shell(self, command: str, *, check: bool = True, timeout_s: float = 120.0, stdin: str = "") -> str:
        """Run a shell command on it as root and return its output."""
        argv = (*self.ssh, f"root@{self.address}", command)
        return run(*argv, check=check, timeout_s=timeout_s, input=stdin).stdout

    def python(self, code: str, **values: Any) -> Any:
        """Run code with the release's Python on it: `given` holds `values`, `answer` comes back."""
        given = json.dumps(json.dumps(values))
        program = f"import json\ngiven = json.loads({given})\n{code}\nprint(json.dumps(answer))\n"
        return json.loads(self.shell("/opt/epi-factory/current/bin/python -", stdin=program, timeout_s=300))

    def listing(self) -> set[str]:
        """Return every path of the system but those of UNLISTED."""
        unlisted = " -o ".join(f"-path '{path}'" for path in UNLISTED)
        return set(self.shell(f"find / -xdev \\( {unlisted} \\) -prune -o -print").splitlines())


@dataclass(frozen=True)
class Network:
    """A network namespace with a bridge; `enter` goes in front of a command that shall run in it."""

    name: str

    @property
    def enter(self) -> tuple[str, ...]:
        """The command's prefix."""
        return ("nsenter", f"--net=/run/netns/{self.name}")


@contextmanager
def network() -> Iterator[Network]:
    """Give a closed network; the host is its address 1."""
    net = Network(f"epi-{os.getpid()}")
    run("ip", "netns", "add", net.name)
    try:
        for command in ("link set lo up", "link add lab type bridge", f"addr add {_NETWORK}.1/24 dev lab",
                        "link set lab up"):  # fmt: skip
            run("ip", "-n", net.name, *command.split())
        yield net
    finally:
        run("ip", "netns", "del", net.name, check=False)


@contextmanager
def machines(names: Sequence[str], found: Supplies, net: Network) -> Iterator[dict[str, Machine]]:
    """Boot one machine a name and give them when all answer; everything is gone afterwards."""
    with ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="epi-provision-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / "key")
        ssh = (
            *net.enter, "ssh", "-i", str(home / "key"), "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5",
        )  # fmt: skip
        booted = {}
        for number, name in enumerate(names, start=11):
            machine = Machine(name, f"{_NETWORK}.{number}", home / name / "root", ssh)
            stack.enter_context(_boot(machine, found, net, (home / "key.pub").read_text()))
            booted[name] = machine
        for machine in booted.values():
            _wait(machine)
        yield booted


@contextmanager
def _boot(machine: Machine, found: Supplies, net: Network, key: str) -> Iterator[None]:
    home = machine.root.parent
    for part in ("root", "upper", "work"):
        (home / part).mkdir(parents=True)
    layers = f"lowerdir={found.root},upperdir={home / 'upper'},workdir={home / 'work'}"
    run("mount", "-t", "overlay", "overlay", "-o", layers, machine.root)
    try:
        _prepare(machine, key)
        folders = {found.debs: "debs", found.wheels: "wheels", found.dllama: "dllama.git", ROOT / "demo": "demo"}
        binds = [f"--bind-ro={folder}:/srv/epi-factory/{name}" for folder, name in folders.items()]
        binds += [f"--bind={_frequency_domain(home)}:/srv/epi-factory/cpufreq"]
        with (home / "console").open("wb") as console:
            argv = [
                *net.enter, "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot",
                f"--directory={machine.root}", f"--machine={machine.name}", "--network-bridge=lab",
                "--suppress-sync=yes", *binds,
            ]  # fmt: skip
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        run("umount", "--lazy", machine.root, check=False)


def _frequency_domain(home: Path) -> Path:
    """Make the files of one CPU frequency domain, to be bound to where a real kernel has them."""
    policy = home / "cpufreq" / "policy0"
    policy.mkdir(parents=True)
    (policy / "scaling_available_governors").write_text("performance ondemand\n")
    (policy / "scaling_governor").write_text("ondemand\n")
    return policy.parent


def _prepare(machine: Machine, key: str) -> None:
    """Give the machine a name, an address, our key, and the folder of packages as its only apt source."""
    files = {
        "etc/hostname": machine.name + "\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {machine.name}\n",
        "root/.ssh/authorized_keys": key,
        "etc/apt/sources.list": "deb [trusted=yes] file:/srv/epi-factory/debs ./\n",
        "etc/systemd/network/10-lab.network": f"[Match]\nName=host0\n[Network]\nAddress={machine.address}/24\n",
    }
    for name, text in files.items():
        path = machine.root / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(text)
    run("chroot", machine.root, "systemctl", "enable", "--quiet", "systemd-networkd", "ssh")
    # As bare as an image: no lists of packages that were fetched from elsewhere.
    lists = "/var/lib/apt/lists"
    command = f"apt-get clean && rm -rf {lists}/* /var/lib/apt/periodic && touch -d 2020-01-01 {lists}"
    run("chroot", machine.root, "sh", "-c", command)


def _wait(machine: Machine, timeout_s: float = 120.0) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if "up" in machine.shell("echo up", check=False):
            # From inside, since nspawn's own mounts below /sys come on top of its binds.
            machine.shell(f"mount --bind /srv/epi-factory/cpufreq {CPUFREQ}")
            return
        time.sleep(1)
    console = (machine.root.parent / "console").read_text(errors="replace")
    raise AssertionError(f"{machine.name} did not start:\n{console[-3000:]}")
