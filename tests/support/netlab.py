"""Network namespaces for tests: machines on their own addresses, whose cable can be cut, made slow or lossy.

Needs root. One bridge in the machine's own namespace, one namespace with a veth pair for each machine. Everything has
this process's id in its name, and goes away at the end.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


def _run(*command: str, stdin: str | None = None) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=30, input=stdin)


@dataclass
class NetLab:
    """A bridge and the machines on it; `broadcaster` is the bridge's own address."""

    machines: tuple[str, ...]
    broadcaster: str = field(default_factory=lambda: f"10.77.{os.getpid() % 250}.1")

    def namespace(self, machine: str) -> str:
        """Return the name of a machine's network namespace."""
        return f"epi{os.getpid()}-{machine}"

    def address(self, machine: str) -> str:
        """Return the machine's address."""
        return f"{self.broadcaster.rpartition('.')[0]}.{10 + self.machines.index(machine)}"

    def _cable(self, machine: str) -> str:
        return f"ev{os.getpid() % 100_000}-{self.machines.index(machine)}"

    @property
    def _bridge(self) -> str:
        return f"eb{os.getpid() % 100_000}"

    def up(self) -> None:
        """Make bridge, namespaces and cables."""
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        _run("ip", "address", "add", f"{self.broadcaster}/24", "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")
        for machine in self.machines:
            space, cable = self.namespace(machine), self._cable(machine)
            _run("ip", "netns", "add", space)
            _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
            _run("ip", "link", "set", cable, "master", self._bridge, "up")
            inside = ("ip", "-n", space)
            _run(*inside, "address", "add", f"{self.address(machine)}/24", "dev", "eth0")
            _run(*inside, "link", "set", "lo", "up")
            _run(*inside, "link", "set", "eth0", "up")

    def down(self) -> None:
        """Remove what `up` made, as far as it is there."""
        for machine in self.machines:
            subprocess.run(["ip", "netns", "del", self.namespace(machine)], capture_output=True, timeout=30)
            subprocess.run(["ip", "link", "del", self._cable(machine)], capture_output=True, timeout=30)
        subprocess.run(["ip", "link", "del", self._bridge], capture_output=True, timeout=30)

    @contextmanager
    def cut(self, machine: str) -> Iterator[None]:
        """Pull the machine's cable: packets vanish, nobody says goodbye."""
        _run("ip", "link", "set", self._cable(machine), "down")
        try:
            yield
        finally:
            _run("ip", "link", "set", self._cable(machine), "up")

    @contextmanager
    def slow(self, machine: str, rate: str = "100kbit") -> Iterator[None]:
        """Let the machine send and receive no more than `rate`."""
        queue = ("root", "tbf", "rate", rate, "burst", "4kb", "latency", "2s")
        _run("tc", "qdisc", "add", "dev", self._cable(machine), *queue)
        _run("tc", "-n", self.namespace(machine), "qdisc", "add", "dev", "eth0", *queue)
        try:
            yield
        finally:
            _run("tc", "qdisc", "del", "dev", self._cable(machine), "root")
            _run("tc", "-n", self.namespace(machine), "qdisc", "del", "dev", "eth0", "root")

    @contextmanager
    def lossy(self, machine: str, percent: int = 5) -> Iterator[None]:
        """Let `percent` of the packets that reach the machine vanish."""
        nft = ("ip", "netns", "exec", self.namespace(machine), "nft", "-f", "-")
        rule = f"iifname eth0 numgen random mod 100 < {percent} drop"
        _run(*nft, stdin=f"table inet loss {{ chain input {{ type filter hook input priority 0; {rule}; }}; }}")
        try:
            yield
        finally:
            _run(*nft, stdin="delete table inet loss")


@contextmanager
def net_lab(machines: Sequence[str]) -> Iterator[NetLab]:
    """Make the network and remove it at the end."""
    lab = NetLab(tuple(machines))
    try:
        lab.up()
        yield lab
    finally:
        lab.down()
