"""Throw-away Debian machines for the provisioning tests: debootstrap once, an overlay a machine, booted with systemd.

They live in a network namespace of their own, without any way out: packages come from a folder of .deb files and a
folder of wheels that were fetched beforehand through apt and pip, and are mounted read-only. Root is needed.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.engine_wheel import cache_dir, find_wheel

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
BASE_PACKAGES = (
    "python3,python3-apt,systemd,systemd-sysv,dbus,openssh-server,sudo,udev,iproute2,ca-certificates,procps"
)
LAB_PACKAGES = ("chrony", "nftables", "python3-venv", "sqlite3", "libgomp1", "cage", "chromium")
TOOLS = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container", "ip": "iproute2", "ssh": "openssh-client"}
_NETWORK = "10.77.0"


def missing_tools() -> list[str]:
    """Return the Debian packages that are missing on this machine."""
    return sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})


def run(
    *argv: str | Path, timeout_s: float = 600.0, check: bool = True, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it said; a failure shows its output."""
    done = subprocess.run([str(part) for part in argv], capture_output=True, text=True, timeout=timeout_s, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{shlex.join(map(str, argv))}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@dataclass(frozen=True)
class Supplies:
    """What machines are made of, kept in the user's cache between runs."""

    root: Path
    debs: Path
    wheels: Path


def supplies() -> Supplies:
    """Return the base system, the .deb files and the wheels, fetching what is not in the cache."""
    home = cache_dir() / "provision"
    home.mkdir(parents=True, exist_ok=True)
    found = Supplies(home / f"root-{SUITE}", home / "debs", home / "wheels")
    if not found.root.exists():
        half = home / "root.half"
        shutil.rmtree(half, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", SUITE, half, MIRROR, timeout_s=1800)
        half.rename(found.root)
    if not (found.debs / "Packages").exists():
        _fetch_debs(found)
    _fetch_wheels(found)
    return found


def _fetch_debs(found: Supplies) -> None:
    """Let apt work out and fetch what the roles will install, and index it as a repository."""
    found.debs.mkdir(exist_ok=True)
    command = "apt-get update -q && apt-get install -q -y --download-only --no-install-recommends " + " ".join(
        LAB_PACKAGES
    )
    run("chroot", found.root, "sh", "-c", command, timeout_s=1800)
    for deb in (found.root / "var/cache/apt/archives").glob("*.deb"):
        shutil.move(deb, found.debs / deb.name)
    index = []
    for deb in sorted(found.debs.glob("*.deb")):
        fields = run("dpkg-deb", "--field", deb).stdout.strip()
        sha256 = run("sha256sum", deb).stdout.split()[0]
        index.append(f"{fields}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {sha256}\n")
    (found.debs / "Packages").write_text("\n".join(index))


def _fetch_wheels(found: Supplies) -> None:
    """Fetch the wheels of every extra a lab uses; pip finds those that are here already."""
    found.wheels.mkdir(exist_ok=True)
    engine = find_wheel()
    assert engine is not None, "the engine's wheel is not built: make install"
    if not (found.wheels / engine.name).exists():
        shutil.copy(engine, found.wheels)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    extras = f"{ROOT}[node,surgeon,meter,meter-parquet,orchestrator]"
    run(*pip, "wheel", "--prefer-binary", "--find-links", found.wheels, "--wheel-dir", found.wheels, extras,
        "setuptools", "wheel", timeout_s=1800)  # fmt: skip
    for ours in found.wheels.glob("epi_factory-*.whl"):
        ours.unlink()


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
        """Return every path below /etc, /opt and /usr/local, and what is in /var/lib and /var/cache."""
        find = "find /etc /opt /usr/local -not -path '*/__pycache__*'; find /var/lib /var/cache -maxdepth 1"
        return set(self.shell(find).splitlines())


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
        binds = [f"--bind-ro={found.debs}:/srv/debs", f"--bind-ro={found.wheels}:/srv/wheels"]
        binds += [f"--bind-ro={ROOT / 'demo'}:/srv/epi-factory/demo"]
        with (home / "console").open("wb") as console:
            argv = [
                *net.enter, "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot",
                f"--directory={machine.root}", f"--machine={machine.name}", "--network-bridge=lab", *binds,
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


def _prepare(machine: Machine, key: str) -> None:
    """Give the machine a name, an address, our key, and the folder of packages as its only apt source."""
    files = {
        "etc/hostname": machine.name + "\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {machine.name}\n",
        "root/.ssh/authorized_keys": key,
        "etc/apt/sources.list": "deb [trusted=yes] file:/srv/debs ./\n",
        "etc/systemd/network/10-lab.network": f"[Match]\nName=host0\n[Network]\nAddress={machine.address}/24\n",
    }
    for name, text in files.items():
        path = machine.root / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(text)
    for folder in ("srv/debs", "srv/wheels", "srv/epi-factory/demo"):
        (machine.root / folder).mkdir(parents=True, exist_ok=True)
    run("chroot", machine.root, "systemctl", "enable", "--quiet", "systemd-networkd", "ssh")
    # As bare as an image: no lists of packages that were fetched from elsewhere.
    lists = "/var/lib/apt/lists"
    command = f"apt-get clean && rm -rf {lists}/* /var/lib/apt/periodic && touch -d 2020-01-01 {lists}"
    run("chroot", machine.root, "sh", "-c", command)


def _wait(machine: Machine, timeout_s: float = 120.0) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if "up" in machine.shell("echo up", check=False):
            return
        time.sleep(1)
    console = (machine.root.parent / "console").read_text(errors="replace")
    raise AssertionError(f"{machine.name} did not start:\n{console[-3000:]}")
