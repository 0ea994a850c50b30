"""`epi meter find_channel`: switch a marker load on one node at a time and see which channel answers."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from meter_bridge.cli.remote import DEFAULT_URL, AsJson, CaFile, Remote, TokenFile, Url, bridge_at, with_bridge
from meter_bridge.find_channel import find_channel as find
from meter_bridge.find_channel import verdict
from shared.kernel.clock import utc_ns
from shared.kernel.errors import ConfigurationError
from shared.screen import Screen, say, say_json
from shared.service.auth import load_token
from shared.service.endpoint import Endpoint
from shared.service.tls import lab_ca
from shared.wire.client import AgentClient
from shared.wire.job_keys import FindNodeJob
from shared.wire.meter_api import FoundChannel, MarkerRun
from shared.wire.node_jobs.workloads import MarkerParams, MarkerResult

_AFTER_S = 1.0


def find_channel(
    agent: Annotated[list[str], typer.Option(help="NODE=URL of each node agent; repeat")],
    agent_token_file: Annotated[Path | None, typer.Option(help="file with the agents' token")] = None,
    on_s: Annotated[float, typer.Option(help="seconds of load", min=0.5)] = 2.0,
    cycles: Annotated[int, typer.Option(help="times the load is switched on", min=1, max=10)] = 2,
    lag_s: Annotated[float, typer.Option(help="how late the meter is, if known", min=0, max=5)] = 0.0,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Find swapped channels; exit code 1 when a node's own channel does not answer."""
    agents = dict(_pair(text) for text in agent)
    params = MarkerParams(on_s=on_s, off_s=on_s, cycles=cycles)

    async def run(bridge: Remote) -> list[FoundChannel]:
        found = []
        for node, address in agents.items():
            marker = await _mark(node, Endpoint(address, load_token(agent_token_file), lab_ca(ca_file)), params)
            await asyncio.sleep(lag_s + _AFTER_S)
            span_ns = round((lag_s + _AFTER_S) * 1e9)
            block = await bridge.samples(marker.start_utc_ns, marker.end_utc_ns + span_ns, "raw")
            found.append(find(marker, block, lag_s))
        return found

    found = with_bridge(bridge_at(url, token_file, ca_file), run)
    problems = verdict(found)
    if as_json:
        say_json([{**entry.model_dump(), "right": entry.is_right} for entry in found], indent=2)
    else:
        Screen().print(_table(found))
        for problem in problems:
            say(problem, err=True)
    raise typer.Exit(1 if problems else 0)


async def _mark(node: str, agent: Endpoint, params: MarkerParams) -> MarkerRun:
    client = AgentClient(agent.url, agent.token, ca_file=agent.ca_file)
    try:
        job = FindNodeJob(node=node, by="channel", utc_ns=utc_ns()).format()
        span_s = (params.on_s + params.off_s) * params.cycles + params.off_s
        result = await client.run_as(MarkerResult, job, "marker", params, timeout_s=span_s + 60)
    finally:
        await client.close()
    return MarkerRun(node=node, on=result.on, start_utc_ns=result.start_utc_ns, end_utc_ns=result.end_utc_ns)


def _pair(text: str) -> tuple[str, str]:
    node, separator, address = text.partition("=")
    if not separator or not address.startswith(("http://", "https://")):
        raise ConfigurationError("an agent is written NODE=URL", where=text, hint="as in node1=http://10.0.0.11:8701")
    return node, address


def _table(found: list[FoundChannel]) -> Table:
    channels = list(found[0].rises_w) if found else []
    table = Table("marker on", *(f"rise of {node}" for node in channels), "verdict")
    for entry in found:
        verdict_text = "right" if entry.is_right else f"answered by {entry.answered_by or 'none'}"
        table.add_row(entry.node, *(f"{entry.rises_w[node]:+.2f} W" for node in channels), verdict_text)
    return table
