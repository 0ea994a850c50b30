"""Finds a node for a person: its status LED blinks, or the meter says whose channel rises with a load on it.

Nothing is done while a measurement window is open; the load, which takes seconds of a whole core, never in a campaign.
"""

from typing import Literal

from orchestrator.campaign.service import CampaignService
from shared.kernel.clock import utc_ns
from shared.kernel.errors import ConflictError, NotFoundError
from shared.kernel.records import NodeName, Record
from shared.wire.job_keys import FindNodeJob
from shared.wire.meter_api import FoundChannel, MarkerRun
from shared.wire.node_jobs.host import BlinkParams, BlinkResult
from shared.wire.node_jobs.workloads import MarkerParams, MarkerResult

FindNodeBy = Literal["led", "channel"]

_SAMPLES_A_STEP = 6
_SHORTEST_STEP_S = 0.6
_MARKER_TIMEOUT_S = 120.0
_LED_TIMEOUT_S = 30.0


class FindNodeRequest(Record):
    """How a node is to make itself known."""

    by: FindNodeBy = "led"


class FindNodeResult(Record):
    """How it did, in a sentence for people; `led` or `channel` holds the particulars."""

    node: NodeName
    by: FindNodeBy
    sentence: str
    led: str | None = None
    channel: FoundChannel | None = None


async def find_node(service: CampaignService, node: NodeName, by: FindNodeBy) -> FindNodeResult:
    """Let a node make itself known; returns when it has.

    Raises:
        NotFoundError: no such node.
        ConflictError: something is being measured.
        EpiError: the node or the bridge says why it cannot.
    """
    lab = service.lab
    if (client := lab.nodes.get(node)) is None:
        raise NotFoundError("no such node", where=node, hint=f"known: {', '.join(lab.nodes)}")
    if lab.window_open:
        raise ConflictError("a measurement window is open", where=node, hint="ask again between two runs")
    job = FindNodeJob(node=node, by=by, utc_ns=utc_ns()).format()
    if by == "led":
        blinked = await client.run_as(BlinkResult, job, "blink", BlinkParams(), timeout_s=_LED_TIMEOUT_S)
        return FindNodeResult(node=node, by=by, led=blinked.led, sentence=f"The LED {blinked.led} of {node} blinked.")
    if service.is_busy:
        raise ConflictError(
            "a campaign is running; a load on the node would disturb it", where=node, hint="pause the campaign first"
        )
    rate_hz = (await lab.meter_status()).instrument.sample_rate_hz or 1.0
    step_s = max(_SHORTEST_STEP_S, _SAMPLES_A_STEP / rate_hz)
    load = MarkerParams(on_s=step_s, off_s=step_s, cycles=2)
    marker = await client.run_as(MarkerResult, job, "marker", load, timeout_s=_MARKER_TIMEOUT_S)
    run = MarkerRun(node=node, on=marker.on, start_utc_ns=marker.start_utc_ns, end_utc_ns=marker.end_utc_ns)
    offset_ns = (await lab.clock_offset(node)).offset_ns
    marked = _moved(run, -offset_ns).model_dump(mode="json")
    found = await lab.meter.request_as(FoundChannel, "POST", "/v1/find_channel", json=marked)
    return FindNodeResult(node=node, by=by, channel=found, sentence=_sentence(found))


def _moved(run: MarkerRun, by_ns: int) -> MarkerRun:
    """Tell a marker of a node's clock in ours."""
    return MarkerRun(
        node=run.node, on=tuple((start + by_ns, end + by_ns) for start, end in run.on),
        start_utc_ns=run.start_utc_ns + by_ns, end_utc_ns=run.end_utc_ns + by_ns,
    )  # fmt: skip


def _sentence(found: FoundChannel) -> str:
    if found.answered_by is None:
        return f"No channel rose clearly with the load on {found.node}: check its CT."
    rise = f"{found.rises_w[found.answered_by]:+.1f} W"
    if found.is_right:
        return f"The channel of {found.node} rose by {rise} with its load: it is wired right."
    return f"With the load on {found.node} the channel of {found.answered_by} rose by {rise}: exchange the two CTs."
