"""The reference pages of the documentation site, generated from the code: commands, settings, REST.

Not here: the prose beside them, and how the site is built (`hooks`, mkdocs.yml).
"""

import asyncio
import tempfile
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args

import click
import typer
from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from meter_bridge.app import build_app as bridge_app
from meter_bridge.settings import BridgeSettings
from node_agent.app import build_app as node_app
from node_agent.settings import NodeSettings
from orchestrator.app import build_app as orchestrator_app
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.settings import OrchestratorSettings
from surgeon.app import build_app as surgeon_app
from surgeon.settings import SurgeonSettings

SETTINGS: dict[str, type[BaseModel]] = {
    "Orchestrator": OrchestratorSettings, "Node agent": NodeSettings, "Surgeon": SurgeonSettings,
    "Meter bridge": BridgeSettings, "Campaign spec": CampaignSpec,
}  # fmt: skip


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command of `epi` with its whole name, groups before their members."""
    for point in sorted(entry_points(group="epi.commands"), key=lambda point: point.name):
        command: Any = typer.main.get_command(point.load())
        yield from _walk(f"epi {point.name}", command)


def _walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if getattr(command, "hidden", False):
        return
    yield name, command
    members: dict[str, click.Command] = getattr(command, "commands", {})
    for member in members.values():
        yield from _walk(f"{name} {member.name}", member)


def parameters(command: click.Command) -> Iterator[tuple[str, str]]:
    """Yield (spelling, help) of every argument and option but --help and those of shell completion."""
    for parameter in command.params:
        if parameter.name in ("help", "install_completion", "show_completion"):
            continue
        spelling = ", ".join(parameter.opts) if parameter.opts[0].startswith("-") else (parameter.name or "").upper()
        yield spelling, str(getattr(parameter, "help", None) or "")


def cli_page() -> str:
    """Return the commands with their options."""
    lines = ["# Commands", ""]
    for name, command in commands():
        lines += [f"## `{name}`", "", (command.help or "").strip(), ""]
        rows = list(parameters(command))
        if rows:
            lines += [
                "| option | meaning |",
                "|---|---|",
                *(f"| `{one}` | {_cell(help_)} |" for one, help_ in rows),
                "",
            ]
    return "\n".join(lines)


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the records inside a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_of(inner)


def settings_page() -> str:
    """Return every key of every settings file and of a campaign spec."""
    lines = ["# Settings", "", "Keys of the TOML files. A key without a default must be given.", ""]
    for title, model in SETTINGS.items():
        lines += [f"## {title}", ""]
        for one in _with_nested(model):
            lines += [f"### {one.__name__}", "", (one.__doc__ or "").strip().split("\n\n")[0], ""]
            lines += [
                "| key | default | meaning |",
                "|---|---|---|",
                *(_row(*item) for item in one.model_fields.items()),
                "",
            ]
    return "\n".join(lines)


def _with_nested(model: type[BaseModel]) -> list[type[BaseModel]]:
    found = [model]
    for one in found:
        for field in one.model_fields.values():
            found += [inner for inner in models_of(field.annotation) if inner not in found]
    return found


def _row(name: str, field: FieldInfo) -> str:
    default = "required"
    if field.default is not PydanticUndefined:
        default = "a table" if isinstance(field.default, BaseModel) else f"`{field.default!r}`"
    elif field.default_factory is not None:
        default = "empty"
    return f"| `{name}` | {_cell(default)} | {_cell(field.description or '')} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def services(folder: Path) -> dict[str, FastAPI]:
    """Return the four services with settings that start nothing outside of `folder`."""
    base: dict[str, Any] = {"port": 1}
    (folder / "prompts.txt").write_text("A prompt.\n")
    here = {"name": "agent", "url": "http://127.0.0.1:1"}
    return {
        "orchestrator": orchestrator_app(OrchestratorSettings.model_validate(base | {
            "name": "orchestrator", "state_dir": folder / "orchestrator", "nodes": [here], "surgeon": here,
            "meter": here, "results_dir": folder, "workload_prompts": folder / "prompts.txt",
        }), None),
        "node agent": node_app(NodeSettings.model_validate(
            base | {"name": "node1", "state_dir": folder / "node"}
        ), None),
        "surgeon": surgeon_app(SurgeonSettings.model_validate(
            base | {"name": "surgeon", "state_dir": folder / "surgeon", "models": {}}
        ), None),
        "meter bridge": bridge_app(BridgeSettings.model_validate(base | {
            "name": "meter", "state_dir": folder / "meter", "channels": ["node1"], "source": {"device": "/dev/null"},
        }), None),
    }  # fmt: skip


def descriptions() -> dict[str, dict[str, Any]]:
    """Return service -> its OpenAPI description; each service is started once in a folder of its own."""

    async def describe(app: FastAPI) -> dict[str, Any]:
        async with app.router.lifespan_context(app):
            return app.openapi()

    with tempfile.TemporaryDirectory() as folder:
        return {name: asyncio.run(describe(app)) for name, app in services(Path(folder)).items()}


def rest_page() -> str:
    """Return every endpoint of every service in a line."""
    lines = [
        "# REST",
        "",
        "Each service describes itself in full at `/openapi.json`; curl examples are in the API page.",
        "",
    ]
    for name, description in descriptions().items():
        lines += [f"## {name.capitalize()}", "", "| endpoint | does |", "|---|---|"]
        for path, methods in sorted(description["paths"].items()):
            for method, operation in methods.items():
                told = _cell((operation.get("description") or operation.get("summary") or "").split("\n\n")[0])
                lines.append(f"| `{method.upper()} {path}` | {told} |")
        lines.append("")
    return "\n".join(lines)


PAGES = {"reference/cli.md": cli_page, "reference/settings.md": settings_page, "reference/rest.md": rest_page}
