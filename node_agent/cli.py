"""`epi node`: facts of this machine, and running the agent in the foreground."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from node_agent.host import read_facts
from node_agent.settings import NodeSettings
from shared.auth import load_token
from shared.client import AgentClient
from shared.node_jobs import NodeFacts
from shared.settings import load_settings

app = typer.Typer(help="One machine of the cluster: its facts and its agent.", no_args_is_help=True)


@app.command()
def serve(config: Annotated[Path, typer.Option(help="the agent's TOML file")]) -> None:
    """Run the node agent in the foreground until Ctrl-C or SIGTERM."""
    from node_agent.__main__ import run

    run(load_settings(NodeSettings, config))


@app.command()
def facts(
    config: Annotated[Path | None, typer.Option(help="ask the running agent of this TOML file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for scripts")] = False,
) -> None:
    """Show what this machine is and how it is; what it does not say is shown as unknown."""
    found = asyncio.run(_remote(load_settings(NodeSettings, config)) if config else _local())
    if as_json:
        typer.echo(json.dumps(found.model_dump(mode="json"), indent=2))
        return
    table = Table(show_header=False, box=None)
    for key, value in found.model_dump().items():
        table.add_row(key, "unknown" if value is None else str(value))
    Console().print(table)


async def _local() -> NodeFacts:
    return await read_facts(NodeSettings(name="local", state_dir=Path.cwd()))


async def _remote(settings: NodeSettings) -> NodeFacts:
    client = AgentClient(f"http://{settings.host}:{settings.port}", load_token(settings.token_file))
    try:
        return NodeFacts.model_validate(await client.request("GET", "/v1/facts"))
    finally:
        await client.close()
