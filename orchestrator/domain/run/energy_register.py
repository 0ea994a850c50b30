"""The meter's own energy register against our integral: two ways to the same joules, and their disagreement."""

from collections.abc import Mapping

from orchestrator.domain.run.alignment import Trace, integrate
from shared.kernel.records import NodeName, Record


class EnergyRegisterCheck(Record):
    """One node over the whole trace of a run; `relative` is (register - integral) / integral."""

    node: NodeName
    energy_register_joules: float
    integrated_joules: float
    relative: float


def check_energy_register(
    traces: Mapping[NodeName, Trace], energy_register_j: Mapping[NodeName, float | None] | None, gap_limit_s: float
) -> tuple[EnergyRegisterCheck, ...]:
    """Compare between first and last sample of each node; nodes without a register or with gaps are left out."""
    found: list[EnergyRegisterCheck] = []
    for node, trace in traces.items():
        register = (energy_register_j or {}).get(node)
        if register is None or trace.utc_ns.size < 2:
            continue
        energy = integrate(trace, int(trace.utc_ns[0]), int(trace.utc_ns[-1]), gap_limit_s).energy_j
        if energy:
            relative = (register - energy) / energy
            found.append(
                EnergyRegisterCheck(
                    node=node, energy_register_joules=register, integrated_joules=energy, relative=relative
                )
            )
    return tuple(found)
