"""What else happened inside the windows: stalled requests, other programs, a machine's host, clocks that moved.

The rules of `validity` for what a node says of itself; what the meter says is judged there.
"""

from collections.abc import Iterable
from statistics import median

from pydantic import Field

from orchestrator.domain.campaign.protocol import WindowRules
from orchestrator.domain.run.findings import Finding, Verdict, fail, flag
from orchestrator.domain.run.records import RunInput, WindowLoad
from shared.kernel.records import Record
from shared.wire.node_jobs.load import MachineLoad

_NAMED = 3


def check_stalls(run: RunInput) -> list[Finding]:
    """Judge the requests of each workload, which all do the same: one that takes far longer than its siblings stalled.

    An engine or worker that was stopped, a cable that was out or a machine that did something else leaves joules in the
    window that no token caused.
    """
    found: list[Finding] = []
    rules = run.protocol.rules
    for label in ("prefill", "decode"):
        seconds = sorted(one for window in run.windows if window.label == label for one in window.request_s)
        if len(seconds) < 3:
            continue
        usual, longest = median(seconds), seconds[-1]
        if longest > rules.max_request_ratio * usual and longest - usual > rules.stall_s:
            reason = f"a request took {longest:.3g} s, its {len(seconds) - 1} siblings {usual:.3g} s: something stalled"
            found.append(fail("stall", reason, label))
    return found


def check_clocks(run: RunInput) -> list[Finding]:
    """Judge the nodes' clocks: windows are told by the root's, what the others' agents did by theirs."""
    limit_s = run.protocol.rules.max_clock_drift_s
    root = {marker.node for marker in run.markers}
    found: list[Finding] = []
    for node, clock in run.clocks.items():
        if clock.established_drift_s > limit_s:
            reason = (
                f"the clock moved by {clock.drift_s:+.3g} s against the orchestrator's between the first window and "
                f"the last, limit {limit_s:g} s: is it synchronised?"
            )
            found.append(fail("clock", reason, node) if node in root else flag("clock", reason, node))
    return found


class ForeignLoad(Record):
    """Load of one node in one window that neither the engine nor the agent caused; shares are of one core."""

    cpu_share: float = Field(ge=0)
    programs: tuple[tuple[str, float], ...] = Field(default=(), description="(name and pid, share), busiest first")
    steal_share: float | None = Field(default=None, description="of all of the machine's time")


def foreign_load(window: WindowLoad) -> dict[str, ForeignLoad]:
    """Return node -> what else it did in a window; agents that share a machine are not foreign to each other."""
    own: dict[str, set[tuple[int, int]]] = {}
    for load in window.nodes.values():
        own.setdefault(load.machine, set()).update((one.pid, one.start_ticks) for one in load.own)
    return {node: _foreign(load, own[load.machine]) for node, load in window.nodes.items()}


def _foreign(load: MachineLoad, own: set[tuple[int, int]]) -> ForeignLoad:
    ours_s = sum(one.cpu_s for one in load.foreign if (one.pid, one.start_ticks) in own)
    programs = [
        (f"{one.name}, pid {one.pid}", one.cpu_s / load.duration_s)
        for one in load.foreign
        if (one.pid, one.start_ticks) not in own
    ]
    if load.unseen_cpu_s:
        programs.append(("programs that came and went", load.unseen_cpu_s / load.duration_s))
    others_s = max(load.foreign_cpu_s - ours_s, 0.0) + load.unseen_cpu_s
    return ForeignLoad(
        cpu_share=min(others_s / load.duration_s, load.n_cpus),
        programs=tuple(sorted(programs, key=lambda one: -one[1])),
        steal_share=None if load.steal_s is None else load.steal_s / load.duration_s / load.n_cpus,
    )


def check_loads(run: RunInput) -> list[Finding]:
    """Judge what else the nodes did inside each window: other programs, and their host where they are virtual."""
    rules = run.protocol.rules
    found: list[Finding] = []
    for window in run.window_loads:
        loads = foreign_load(window)
        for nodes in _machines(window):
            where, load = f"{' '.join(nodes)}, {window.label}", max((loads[node] for node in nodes), key=_share)
            if verdict := _verdict(load.cpu_share, rules.max_foreign_cpu_share, rules.fail_foreign_cpu_share, rules):
                reason = f"other programs used {load.cpu_share:.2f} of a core: {_listed(load.programs)}"
                found.append(Finding(rule="foreign_load", verdict=verdict, reason=reason, where=where))
            steal = load.steal_share or 0.0
            if verdict := _verdict(steal, rules.max_steal_share, rules.fail_steal_share, rules):
                reason = f"the machine's host took {steal:.1%} of its time: measure on a machine of its own"
                found.append(Finding(rule="steal", verdict=verdict, reason=reason, where=where))
    return found


def _machines(window: WindowLoad) -> list[list[str]]:
    """Return the nodes in groups that share a machine: what disturbs one of them is said once."""
    found: dict[str, list[str]] = {}
    for node, load in window.nodes.items():
        found.setdefault(load.machine, []).append(node)
    return list(found.values())


def _share(load: ForeignLoad) -> float:
    return load.cpu_share


def _verdict(share: float, flagged: float, failed: float, rules: WindowRules) -> Verdict | None:
    """Return how bad a share is; a shortened campaign is never barred for it: all of a demo lives on one machine."""
    if share > failed and not rules.shortened:
        return "FAIL"
    return "FLAG" if share > flagged else None


def _listed(programs: Iterable[tuple[str, float]]) -> str:
    named = [f"{name} {share:.2f}" for name, share in programs if share >= 0.005]
    rest = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + rest
