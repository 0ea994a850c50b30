"""The machines of an invented lab: what its nodes draw, what its agents and its meter say of themselves."""

import math

from orchestrator.api.models import AgentStatus, LabStatus
from shared.kernel.clock import utc_ns
from shared.kernel.errors import ErrorPayload
from shared.kernel.records import Instrument
from shared.wire.meter_api import Ambient, LivePower, MeterStatus, PowerAggregate
from shared.wire.node_jobs.host import NodeFacts
from shared.wire.protocol import Health
from tests.web.states import RUN_S, InventedLab, S

NODES = ("node1", "node2", "node3", "node4")
INSTRUMENT = Instrument(
    name="epi-meter emulator",
    kind="emulated",
    emulated=True,
    firmware="emulator-1.0",
    measurement_point="none: watts are calculated from CPU time",
    sample_rate_hz=10.0,
)
CALIBRATED = INSTRUMENT.model_copy(
    update={"calibration_id": "cal-0002", "calibrated_utc_ns": utc_ns() - 341 * 86_400 * S}
)


def power_at(lab: InventedLab, at_utc_ns: int) -> LivePower:
    """Return what four nodes draw in the present step."""
    t = (at_utc_ns - lab.start_utc_ns) / 1e9
    at = t % RUN_S
    busy = (
        0.0
        if at < 5
        else 0.9
        if at < 7 and (at * 2) % 2 < 1
        else 0.0
        if at < 7
        else 0.95
        if at < 11
        else 0.62
        if at < 16
        else 0.85
    )
    nodes = {}
    for i, node in enumerate(NODES):
        ripple = 0.12 * math.sin(2.1 * t + i) + 0.05 * math.sin(17 * t + 3 * i)
        mean = 3.0 + 0.1 * i + (4.0 - 0.4 * i) * busy + ripple
        nodes[node] = PowerAggregate(min_w=mean - 0.15, mean_w=mean, max_w=mean + 0.2)
    return LivePower(utc_ns=at_utc_ns, nodes=nodes, cluster_w=sum(n.mean_w for n in nodes.values()), emulated=True)


JOURNAL_FULL = "the journal cannot be written: no space left on device"


def lab_status(lab: InventedLab) -> LabStatus:
    """Return agents and meter."""
    agents = [_node(lab, i, node) for i, node in enumerate(NODES)]
    for name, service in (("surgeon", "surgeon"), ("meter", "meter_bridge")):
        agents.append(
            AgentStatus(
                name=name,
                service=service,
                url="http://127.0.0.1:8705",
                health=_health(name, service),
                seen_utc_ns=utc_ns(),
            )
        )
    meter = MeterStatus(
        connected=lab.metered,
        instrument=CALIBRATED if lab.state == "failed" else INSTRUMENT,
        nodes=NODES,
        frames=81_204,
        gaps=1,
        reconnects=0 if lab.metered else 3,
        last_sample_utc_ns=utc_ns() if lab.metered else lab.start_utc_ns,
        problems=() if lab.metered else ("/dev/serial/by-id/usb-epi-meter: no such device",),
        ambient=Ambient(temperature_c=21.4, humidity_percent=38.0),
    )
    health = _health("orchestrator", "orchestrator")
    if lab.state == "failed":
        health = health.model_copy(update={"status": "failing", "problems": (JOURNAL_FULL,)})
    return LabStatus(agents=tuple(agents), meter=meter, emulated=True, cached=False, utc_ns=utc_ns(), health=health)


def _node(lab: InventedLab, i: int, node: str) -> AgentStatus:
    if lab.state == "node_lost" and i == 2:
        error = ErrorPayload(
            code="infrastructure",
            fault="infrastructure",
            message="connection refused",
            where="http://127.0.0.1:8703",
            hint="check its power and its service",
        )
        return AgentStatus(name=node, service="node_agent", url="http://127.0.0.1:8703", error=error)
    hot = lab.state == "node_lost" and i == 0
    facts = NodeFacts(
        name=node,
        board="Raspberry Pi 5 Model B Rev 1.0",
        cpu_model="Cortex-A76",
        n_cpus=4,
        memory_bytes=8_000_000_000,
        kernel="6.12",
        python="3.11.2",
        governor="ondemand" if hot else "performance",
        cpu_mhz=2400.0,
        temperature_c=54.0 + 3 * i + (24 if hot else 0),
        throttled_bits=0xA000A if hot else 0,
        load_1min=1.1,
        clock_offset_s=0.00021 * i,
        engine_build="llama.cpp 0c1e570",
        disk_free_bytes=91_000_000_000,
        utc_ns=utc_ns(),
    )
    return AgentStatus(
        name=node,
        service="node_agent",
        url=f"http://127.0.0.1:{8701 + i}",
        health=_health(node, "node_agent"),
        facts=facts,
        seen_utc_ns=utc_ns(),
    )


def _health(name: str, service: str) -> Health:
    return Health.model_validate({"service": service, "name": name, "version": "0.1.0", "utc_ns": utc_ns()})
