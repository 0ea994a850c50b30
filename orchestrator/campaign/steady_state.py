"""Waiting before a run's first window, by a fixed time or until the nodes and the meter say that all is steady."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from orchestrator.campaign.lab import Lab
from orchestrator.domain.campaign.steady_state import SteadyStateSpec, SteadyStateWait
from shared.kernel.clock import NS_PER_S, utc_ns
from shared.kernel.records import NodeName
from shared.kernel.slope import relative_drift
from shared.wire.node_jobs.host import SteadyGateParams, SteadyGateResult

Ask = Callable[[NodeName, SteadyGateParams], Awaitable[SteadyGateResult]]


async def wait_steady(lab: Lab, names: Sequence[NodeName], ask: Ask, spec: SteadyStateSpec) -> SteadyStateWait:
    """Wait as `spec` says; `ask` runs a node's `wait_steady` job. The ceiling ends the wait, never the run.

    Raises:
        EpiError: a node or the meter bridge did not answer.
    """
    start = utc_ns()
    gate = spec.gate
    if gate is None:
        await asyncio.sleep(spec.fixed_s)
        return SteadyStateWait(mode=spec.mode, start_utc_ns=start, end_utc_ns=utc_ns())
    answers = await asyncio.gather(*(ask(name, gate) for name in names))
    nodes = dict(zip(names, answers, strict=True))
    drifts = await _steady_power(lab, names, gate, start)
    reasons = [f"{name}: {reason}" for name, node in nodes.items() for reason in node.reasons]
    reasons += [
        f"{name}: metered power drifts by {drift:+.1%}, allowed are {gate.max_power_change:.1%}"
        for name, drift in drifts.items()
        if drift is not None and abs(drift) > gate.max_power_change
    ]
    return SteadyStateWait(
        mode=spec.mode, start_utc_ns=start, end_utc_ns=utc_ns(), steady=not reasons, reasons=tuple(reasons),
        nodes=nodes, power_change=drifts,
    )  # fmt: skip


async def _steady_power(
    lab: Lab, names: Sequence[NodeName], gate: SteadyGateParams, start_utc_ns: int
) -> dict[NodeName, float | None]:
    """Look at the metered power of the last span until it stands still or the ceiling is reached; return its drift."""
    while True:
        now = utc_ns()
        block = await lab.samples(now - int(gate.span_s * NS_PER_S), now)
        drifts = {
            node: relative_drift(list(zip(block.utc_ns, watts, strict=True)))
            for node, watts in block.power_w.items()
            if node in names
        }
        steady = all(drift is None or abs(drift) <= gate.max_power_change for drift in drifts.values())
        if steady or (now - start_utc_ns) / NS_PER_S + gate.every_s > gate.max_s:
            return drifts
        await asyncio.sleep(gate.every_s)
