"""Faults at random moments of a campaign: what may happen, to whom, for how long, and whether the lab says so.

Every fault is real: signals to real processes, a pulled cable of a network namespace, a file system that is full.
`ChaosLab` has nodes on addresses of their own and small disks. Not here: what must hold afterwards (`test_chaos`).
"""

import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from orchestrator.local.layout import load_demo
from shared.kernel.clock import utc_ns
from shared.kernel.errors import EpiError
from tests.crash.stepwise import StepwiseLab
from tests.support.flipped_bytes import flip_byte
from tests.support.lab import api_of, process_of, processes_under, small_demo
from tests.support.netlab import NetLab, net_lab
from tests.support.small_disk import SmallDisk, small_disk

NODES = ("node1", "node2", "node3", "node4")
DAEMONS = ("orchestrator", "surgeon", "meter", *NODES)
CHILDREN = ("engine@node1", *(f"worker@{node}" for node in NODES))
STORES = ("node1", "surgeon")
FaultKind = Literal["kill", "stop", "full disk", "cut network", "silent meter", "flipped byte"]
AT_ONCE: tuple[FaultKind, ...] = ("kill", "flipped byte")
_TOLD_WITHIN_S = 4.0
"""An answer about the lab that is younger than the fault by this much must name it: agents have 3 s to answer."""


@dataclass(frozen=True)
class Fault:
    """What happens to whom, how long after the campaign's start, and how long it lasts."""

    kind: FaultKind
    target: str
    at_s: float
    lasts_s: float
    choice: float = 0.0
    """Of several files, which: 0..1."""

    def __str__(self) -> str:
        lasts = "" if self.kind in AT_ONCE else f" for {self.lasts_s:.1f} s"
        return f"{self.kind} {self.target} at {self.at_s:.1f} s{lasts}"


@dataclass
class Happened:
    """What became of a fault."""

    fault: Fault
    start_utc_ns: int = 0
    end_utc_ns: int = 0
    hit: bool = False
    untold: list[str] = field(default_factory=list)
    told: int = 0

    def touches(self, start_utc_ns: int, end_utc_ns: int) -> bool:
        """Tell whether the fault lasted within a span."""
        return self.hit and self.start_utc_ns < end_utc_ns and start_utc_ns < self.end_utc_ns


def faults_of(seed: int, span_s: float) -> list[Fault]:
    """Return one to four faults within the first `span_s` seconds."""
    chance = random.Random(seed)
    found = []
    for _ in range(chance.choice((1, 2, 2, 3, 4))):
        kind: FaultKind = chance.choice(
            ("kill", "kill", "stop", "stop", "full disk", "cut network", "silent meter", "flipped byte")
        )
        targets = {
            "kill": (*DAEMONS, *CHILDREN), "stop": (*DAEMONS, *CHILDREN), "full disk": ("orchestrator", "node1"),
            "cut network": NODES, "silent meter": ("meter",), "flipped byte": STORES,
        }[kind]  # fmt: skip
        lasts_s = chance.choice((chance.uniform(0.2, 2.0), chance.uniform(2.0, 12.0)))
        found.append(Fault(kind, chance.choice(targets), chance.uniform(0.5, span_s), lasts_s, chance.random()))
    return sorted(found, key=lambda fault: fault.at_s)


@dataclass
class ChaosLab:
    """A running lab in which things can be broken."""

    lab: StepwiseLab
    net: NetLab
    disks: dict[str, SmallDisk]

    def pid_of(self, target: str) -> int | None:
        """Return the pid of a daemon or of `child@node`, None when it does not live now."""
        child, _, node = target.partition("@")
        try:
            return (
                int((self.lab.node_pids(node) / f"{child}.pid").read_text().split()[0])
                if node
                else process_of(self.lab, target)
            )
        except (OSError, ValueError, IndexError, AssertionError):
            return None

    def happen(self, fault: Fault) -> Happened:
        """Let a fault happen, watch what the lab says of it, and end it."""
        happened = Happened(fault)
        breaking: dict[FaultKind, Callable[[str], AbstractContextManager[bool]]] = {
            "kill": self._killed, "stop": self._stopped, "full disk": self._full, "cut network": self._cut,
            "silent meter": self._silent, "flipped byte": lambda target: self._flipped(target, fault.choice),
        }  # fmt: skip
        happened.start_utc_ns = utc_ns()
        with breaking[fault.kind](fault.target) as happened.hit:
            if happened.hit and fault.kind not in AT_ONCE:
                self._watch(happened)
        happened.end_utc_ns = utc_ns()
        return happened

    @contextmanager
    def _killed(self, target: str) -> Iterator[bool]:
        pid = self.pid_of(target)
        with suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
        yield pid is not None

    @contextmanager
    def _stopped(self, target: str) -> Iterator[bool]:
        yield from _standing_still(self.pid_of(target))

    @contextmanager
    def _silent(self, _target: str) -> Iterator[bool]:
        emulators = [line for line in processes_under(self.lab) if "meter emulate" in line]
        yield from _standing_still(int(emulators[0].split()[0]) if emulators else None)

    @contextmanager
    def _full(self, target: str) -> Iterator[bool]:
        disk = self.disks[target]
        disk.fill()
        try:
            yield True
        finally:
            disk.empty()

    @contextmanager
    def _flipped(self, target: str, choice: float) -> Iterator[bool]:
        files = [path for path in sorted(self._store(target).glob("*")) if path.is_file() and len(path.name) == 64]
        with suppress(OSError):  # it may be removed at this very moment
            if files:
                flip_byte(files[int(choice * len(files))])
        yield bool(files)

    def _store(self, agent: str) -> Path:
        return self.lab.home / "state" / agent / "artifacts"

    def forget_damage(self) -> None:
        """Remove what is set aside, as a person does who has looked at it."""
        for agent in STORES:
            for path in (self._store(agent) / "quarantine").glob("*"):
                path.unlink(missing_ok=True)

    @contextmanager
    def _cut(self, target: str) -> Iterator[bool]:
        with self.net.cut(target):
            yield True

    def _watch(self, happened: Happened) -> None:
        """Ask about the lab while the fault lasts; every answer that is fresh must name it."""
        over = time.monotonic() + happened.fault.lasts_s
        while (left := over - time.monotonic()) > 0:
            time.sleep(min(0.5, left))
            asked = time.monotonic()
            try:
                lab: dict[str, Any] = api_of(self.lab).call("GET", "/v1/lab")
            except EpiError:
                continue  # who does not answer is seen to be away
            fresh = lab["utc_ns"] - happened.start_utc_ns > _TOLD_WITHIN_S * 1e9
            if not fresh or lab["cached"] or asked > over - 0.2:
                continue
            if named(happened.fault, lab):
                happened.told += 1
            elif happened.fault.kind != "full disk":  # that is told by the first write that fails
                happened.untold.append(str([(a["name"], a["error"], a["health"]) for a in lab["agents"]])[:2000])


def named(fault: Fault, lab: dict[str, Any]) -> bool:
    """Tell whether an answer of `GET /v1/lab` says what is wrong."""
    agents = {agent["name"]: agent for agent in lab["agents"]}
    child, _, node = fault.target.partition("@")
    if fault.kind == "full disk" and fault.target == "orchestrator":
        return bool(lab["health"]["status"] == "failing")
    if fault.kind == "silent meter":
        return lab["meter"] is None or not lab["meter"]["connected"] or bool(lab["meter"]["problems"])
    agent = agents.get(node or fault.target)
    if agent is None:
        return fault.target == "orchestrator"
    if agent["error"] is not None:
        return True
    problems = " ".join(agent["health"]["problems"])
    return bool(problems) if fault.kind == "full disk" else f"the {child} is stopped" in problems


def _standing_still(pid: int | None) -> Iterator[bool]:
    with suppress(ProcessLookupError):
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
    try:
        yield pid is not None
    finally:
        with suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, signal.SIGCONT)


def let_happen(lab: ChaosLab, faults: list[Fault], given_up: threading.Event) -> list[Happened]:
    """Let each fault happen at its moment, counted from now, unless the campaign has ended before."""
    start, found, lock = time.monotonic(), [], threading.Lock()

    def one(fault: Fault) -> None:
        if not given_up.wait(max(0.0, start + fault.at_s - time.monotonic())):
            happened = lab.happen(fault)
            with lock:
                found.append(happened)

    threads = [threading.Thread(target=one, args=(fault,)) for fault in faults]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found, key=lambda happened: happened.start_utc_ns)


@contextmanager
def chaos_lab() -> Iterator[ChaosLab]:
    """Start a lab with nodes in network namespaces and small disks under journal and root; stop and remove it."""
    out = Path(tempfile.mkdtemp(prefix="epi"))
    lab = StepwiseLab(out)
    lab.home.mkdir()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, out, ignore_errors=True)
        net = stack.enter_context(net_lab(NODES))
        state = lab.home / "state"
        disks = {
            "orchestrator": stack.enter_context(small_disk(state / "orchestrator", 48)),
            "node1": stack.enter_context(small_disk(state / "node1", 160)),
        }
        demo = load_demo(small_demo(lab.home)).model_copy(
            update={
                "hosts": {node: net.address(node) for node in NODES} | {"surgeon": net.broadcaster},
                "namespaces": {node: net.namespace(node) for node in NODES},
            }
        )
        file = lab.home / "demo.toml"
        file.write_text(tomli_w.dumps({"lab": demo.model_dump(mode="json", exclude_none=True)}))
        stack.callback(lab.stop)
        lab.start(file)
        yield ChaosLab(lab, net, disks)
        lab.stop()
        assert processes_under(lab) == [], "no process is left"
