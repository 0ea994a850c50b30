"""`epi node`: facts, engines, governor and steadiness of a machine, and running its agent in the foreground."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from node_agent.machine.host import find_engine, read_facts
from node_agent.settings import NodeSettings
from shared.bars import progress_bar
from shared.kernel.clock import utc_ns
from shared.kernel.records import Record
from shared.kernel.settings import load_settings, validate_settings
from shared.screen import Screen, say, say_json
from shared.service.auth import load_token
from shared.service.tls import lab_ca
from shared.wire.client import AgentClient
from shared.wire.node_jobs.engines import EngineInfo
from shared.wire.node_jobs.host import NodeFacts, SetGovernorParams, SteadyGateParams, SteadyGateResult
from shared.wire.protocol import JobState

app = typer.Typer(help="One machine of the cluster: its facts and its agent.", no_args_is_help=True)


@app.command()
def serve(config: Annotated[Path, typer.Option(help="the agent's TOML file")]) -> None:
    """Run the node agent in the foreground until Ctrl-C or SIGTERM."""
    from node_agent.__main__ import DAEMON

    DAEMON.run(load_settings(NodeSettings, config))


@app.command()
def facts(
    config: Annotated[Path | None, typer.Option(help="ask the running agent of this TOML file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for scripts")] = False,
) -> None:
    """Show what this machine is and how it is; what it does not say is shown as unknown."""
    found = asyncio.run(_remote(load_settings(NodeSettings, config)) if config else _local())
    if as_json:
        say_json(found.model_dump(mode="json"), indent=2)
        return
    table = Table(show_header=False, box=None)
    for key, value in found.model_dump().items():
        table.add_row(key, "unknown" if value is None else str(value))
    Screen().print(table)


@app.command()
def engines(
    config: Annotated[Path, typer.Option(help="the TOML file of the running agent")],
    as_json: Annotated[bool, typer.Option("--json", help="for scripts")] = False,
) -> None:
    """Show what each engine of a node can do."""
    infos = asyncio.run(_engines(load_settings(NodeSettings, config)))
    if as_json:
        say_json([info.model_dump(mode="json") for info in infos], indent=2)
        return
    table = Table("engine", "here", "score", "generate", "layouts", "K override", "build", box=None)
    table.columns[0].no_wrap = True
    for info in infos:
        marks = ["yes" if yes else "no" for yes in (info.available, info.score, info.generate)]
        override = "yes" if info.overrides_experts_per_token else "no"
        table.add_row(info.name, *marks, ", ".join(info.layouts), override, info.build)
    Screen().print(table)


@app.command()
def governor(
    name: Annotated[str, typer.Argument(help="for example performance or ondemand")],
    config: Annotated[Path, typer.Option(help="the TOML file of the running agent")],
) -> None:
    """Set the CPU frequency governor through the agent, where its settings allow it."""
    params = validate_settings(SetGovernorParams, {"governor": name}, where="governor")
    result = asyncio.run(_run(load_settings(NodeSettings, config), "set_governor", params, timeout_s=30))
    say(f"{result['before']} -> {result['after']}" if result["changed"] else f"{result['after']} already")


@app.command("settle", hidden=True)  # its former name
@app.command("steady-gate")
def wait_steady(
    config: Annotated[Path, typer.Option(help="the TOML file of the running agent")],
    min_s: Annotated[float, typer.Option(help="wait at least this long, in seconds")] = 60.0,
    max_s: Annotated[float, typer.Option(help="give up after so many seconds")] = 300.0,
    span_s: Annotated[float, typer.Option(help="steady for so many seconds")] = 60.0,
) -> None:
    """Wait until the node's temperature and load are steady; exit code 2 if they do not become so."""
    params = SteadyGateParams(min_s=min_s, max_s=max_s, span_s=min(span_s, max_s))
    settings = load_settings(NodeSettings, config)
    with progress_bar("waiting") as publish:

        def show(state: JobState) -> None:
            publish(state.progress, state.message)

        answer = asyncio.run(_run(settings, "wait_steady", params, timeout_s=max_s + 30, on_progress=show))
    result = SteadyGateResult.model_validate(answer, extra="ignore")
    slope = "unknown" if result.slope_c_per_min is None else f"{result.slope_c_per_min:+.2f} C/min"
    say(f"{'steady' if result.steady else 'not steady'}: temperature {slope}, CPUs {result.busy:.1%} busy")
    for reason in result.reasons:
        say(f"  {reason}")
    if not result.steady:
        raise typer.Exit(2)


async def _local() -> NodeFacts:
    return await read_facts(NodeSettings(name="local", state_dir=Path.cwd()), await find_engine())


async def _remote(settings: NodeSettings) -> NodeFacts:
    async with _client(settings) as client:
        return await client.request_as(NodeFacts, "GET", "/v1/facts")


async def _engines(settings: NodeSettings) -> list[EngineInfo]:
    async with _client(settings) as client:
        return [await client.read(EngineInfo, one) for one in await client.request("GET", "/v1/engines")]


async def _run(
    settings: NodeSettings,
    kind: str,
    params: Record,
    *,
    timeout_s: float,
    on_progress: Callable[[JobState], None] | None = None,
) -> dict[str, Any]:
    async with _client(settings) as client:
        job_id = f"cli/{kind}-{utc_ns()}"
        return await client.run(job_id, kind, params, timeout_s=timeout_s, on_progress=on_progress)


@asynccontextmanager
async def _client(settings: NodeSettings) -> AsyncIterator[AgentClient]:
    scheme = "http" if settings.tls_cert is None else "https"
    ca_file = settings.source_ca_file or lab_ca(None)
    client = AgentClient(
        f"{scheme}://{settings.host}:{settings.port}", load_token(settings.token_file), ca_file=ca_file
    )
    try:
        yield client
    finally:
        await client.close()
