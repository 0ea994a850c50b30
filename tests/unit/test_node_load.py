"""Who uses a machine's processors between two looks: real processes, and a /proc that the test writes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from node_agent.machine.load import LoadWatch
from shared.wire.node_jobs.load import MachineLoad

BURN = "while True: pass"


def test_a_program_that_is_none_of_ours_is_named_and_our_children_are_not() -> None:
    watch = LoadWatch()
    first = watch.look(None, ())
    assert first.since is None
    own = subprocess.Popen([sys.executable, "-c", BURN])
    # its shell ends at once, so that it is nobody's child here
    shell = ["sh", "-c", f"{sys.executable} -c '{BURN}' >/dev/null 2>&1 & echo $!"]
    stranger = int(subprocess.run(shell, capture_output=True, text=True, check=True).stdout)
    try:
        load, deadline = None, time.monotonic() + 20
        while load is None or stranger not in {one.pid for one in load.foreign}:
            assert time.monotonic() < deadline, load
            time.sleep(0.1)
            load = watch.look(first.utc_ns, ()).since
            first = first if load is not None else watch.look(None, ())
    finally:
        own.kill()
        os.kill(stranger, signal.SIGKILL)
        own.wait()
    assert {os.getpid(), own.pid} <= {one.pid for one in load.own}
    named = {one.pid: one for one in load.foreign}
    assert own.pid not in named and os.getpid() not in named
    assert named[stranger].cpu_s > 0 and "python" in named[stranger].name
    assert load.foreign_cpu_s >= named[stranger].cpu_s


def test_a_look_that_is_not_known_any_more_is_none() -> None:
    watch = LoadWatch()
    first = watch.look(None, ()).utc_ns
    assert watch.look(12345, ()).since is None
    for _ in range(8):
        watch.look(None, ())
    assert watch.look(first, ()).since is None


class Proc:
    """A /proc that is written by the test: ticks of 10 ms."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "sys/kernel/random").mkdir(parents=True)
        (path / "sys/kernel/random/boot_id").write_text("boot-1\n")
        self.total(0, 0)

    def total(self, user: int, steal: int) -> None:
        (self.path / "stat").write_text(f"cpu  {user} 0 0 5000 0 0 0 {steal} 0 0\ncpu0 1 2 3\n")

    def process(self, pid: int, ticks: int, *, name: str = "x", parent: int = 1, start: int = 50, flags: int = 0,
                children: int = 0) -> None:  # fmt: skip
        fields = f"{pid} ({name}) S {parent} 0 0 0 0 {flags} 0 0 0 0 {ticks} 0 {children} 0 20 0 1 0 {start} 0 0"
        (self.path / str(pid)).mkdir(exist_ok=True)
        (self.path / str(pid) / "stat").write_text(fields)

    def gone(self, pid: int) -> None:
        (self.path / str(pid) / "stat").unlink()


def between(proc: Proc, change: "list[tuple[str, tuple[int, ...], dict[str, int | str]]]") -> MachineLoad:
    watch = LoadWatch(proc.path)
    first = watch.look(None, ())
    for name, arguments, options in change:
        getattr(proc, name)(*arguments, **options)
    since = watch.look(first.utc_ns, (700,)).since
    assert since is not None
    return since


def test_a_parent_is_not_charged_with_the_life_of_children_that_ended(tmp_path: Path) -> None:
    """A shell that reaps 43 s of other processes' work within two seconds did not do it."""
    proc = Proc(tmp_path)
    proc.process(700, 0)
    proc.process(1325, 3, name="bash", children=10)
    proc.process(1400, 1000, name="make", parent=1325)
    proc.process(1401, 3200, name="cc", parent=1400)
    load = between(proc, [
        ("process", (1325, 4), {"name": "bash", "children": 4310}),
        ("gone", (1400,), {}),
        ("gone", (1401,), {}),
        ("total", (1 + 100, 0), {}),
    ])  # fmt: skip
    assert [(one.name, one.cpu_s) for one in load.foreign] == [("bash", 0.01)]
    assert (load.foreign_cpu_s, load.unseen_cpu_s) == (0.01, 1.0), "what they did in between is told by the total"


def test_children_kernel_threads_and_pids_used_again(tmp_path: Path) -> None:
    proc = Proc(tmp_path)
    proc.process(700, 100, name="engine (of the node)")
    proc.process(701, 10, parent=700)
    proc.process(800, 500, name="kworker", flags=0x00200000, parent=2)
    proc.process(900, 1000, name="old")
    load = between(proc, [
        ("process", (700, 180), {"name": "engine (of the node)"}),
        ("process", (701, 90), {"parent": 700}),
        ("process", (800, 550), {"name": "kworker", "flags": 0x00200000, "parent": 2}),
        ("process", (900, 7), {"name": "new", "start": 99}),  # another process under a pid that was used before
        ("total", (80 + 80 + 50 + 7, 25), {}),
    ])  # fmt: skip
    assert {(one.name, round(100 * one.cpu_s)) for one in load.foreign} == {("new", 7)}
    assert {one.pid for one in load.own} == {700, 701}
    assert (load.machine, load.steal_s, load.unseen_cpu_s) == ("boot-1", 0.25, 0.0)


def test_time_that_no_process_accounts_for_is_told_beyond_chance(tmp_path: Path) -> None:
    proc = Proc(tmp_path)
    proc.process(700, 0)
    assert between(proc, [("process", (700, 100), {}), ("total", (110, 0), {})]).unseen_cpu_s == 0.0
    proc.total(0, 0)
    proc.process(700, 0)
    assert between(proc, [("process", (700, 100), {}), ("total", (300, 0), {})]).unseen_cpu_s == 2.0
