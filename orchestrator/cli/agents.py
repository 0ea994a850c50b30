"""`epi lab`: what the agents of a lab run, and how their artifacts are."""

from datetime import UTC, datetime
from typing import Any

import typer
from rich.table import Table

from orchestrator.cli.reach import Reach, reaching
from shared.kernel.clock import NS_PER_S
from shared.screen import Screen, say

app = typer.Typer(help="The agents of a lab and their artifacts.", no_args_is_help=True)


@app.command()
@reaching
def agents(reach: Reach) -> None:
    """Show what each agent runs: build, release, hashes of code and packages, the engine with its compile flags."""
    reach.show(reach.api().call("GET", "/v1/lab")["agents"], _print_agents)


@app.command()
@reaching
def artifacts(reach: Reach) -> None:
    """Show when each agent's artifacts were last hashed, how far a scrub is, and what was found damaged."""
    reach.show(reach.api().call("GET", "/v1/lab/artifacts"), _print_artifacts)


@app.command()
@reaching
def scrub(reach: Reach) -> None:
    """Let every agent hash all its artifacts now; it ends by itself when a campaign begins."""
    reach.show(reach.api().call("POST", "/v1/lab/scrub"), lambda _: say("begun; `epi lab artifacts` tells how far"))


def _print_agents(agents: list[dict[str, Any]]) -> None:
    table = Table("agent", "status", "build", "release", "code", "packages", "engine", "flags", "libraries")
    for one in agents:
        table.add_row(*_agent_row(one))
    console = Screen(soft_wrap=True)
    console.print(table)
    for what, hashes in (
        ("code", {one["name"]: _build(one).get("code_sha256") for one in agents}),
        ("engines", {one["name"]: _engine(one).get("libraries_sha256") for one in agents}),
    ):
        names: dict[str, list[str]] = {}
        for name, sha256 in hashes.items():
            if sha256:
                names.setdefault(sha256, []).append(name)
        if len(names) > 1:
            console.print(f"different {what}: {' | '.join(', '.join(group) for group in names.values())}")


def _build(one: dict[str, Any]) -> dict[str, Any]:
    return (one["health"] or {}).get("build") or {}


def _engine(one: dict[str, Any]) -> dict[str, Any]:
    return (one["facts"] or {}).get("engine") or {}


def _agent_row(one: dict[str, Any]) -> list[str]:
    if one["error"] is not None:
        return [one["name"], one["error"]["message"], *[""] * 7]
    build, engine = _build(one), _engine(one)
    flags = [flag for flag in ("openmp", "repack", "kleidiai", "rpc") if engine.get(flag)]
    return [
        one["name"], one["health"]["status"], one["health"]["version"], build.get("release") or "-",
        build.get("code_sha256", "")[:12], build.get("packages_sha256", "")[:12],
        " ".join(filter(None, (engine.get("build"), engine.get("ggml_commit")))), " ".join(flags),
        engine.get("libraries_sha256", "")[:12],
    ]  # fmt: skip


def _print_artifacts(agents: list[dict[str, Any]]) -> None:
    table = Table("agent", "artifacts", "GiB", "hashed since", "scrub", "damaged")
    for one in agents:
        table.add_row(*_row(one))
    console = Screen(soft_wrap=True)
    console.print(table)
    for one in agents:
        for damaged in one["report"]["damaged"] if one["report"] else ():
            healthy = _time(damaged["healthy_utc_ns"]) if damaged["healthy_utc_ns"] else "never seen"
            console.print(
                f"{one['agent']}: artifact {damaged['sha256']} was found damaged at {_time(damaged['found_utc_ns'])}"
                f" (its bytes hash to {damaged['found_sha256']}; last healthy: {healthy}); kept as {damaged['file']}"
            )


def _row(one: dict[str, Any]) -> list[str]:
    report = one["report"]
    if report is None:
        return [one["agent"], one["error"], "", "", "", ""]
    never = f", {report['n_never_hashed']} never" if report["n_never_hashed"] else ""
    oldest = _time(report["oldest_hash_utc_ns"]) if report["oldest_hash_utc_ns"] else "-"
    last = report["last_scrub"]
    scrub = "never yet"
    if one["scrub"] is not None:
        scrub = f"{one['scrub']:.0%} {one['message']}"
    elif last is not None:
        scrub = f"{_time(last['ended_utc_ns'])}: {last['n_hashed']} hashed, {last['n_left']} left"
        scrub += f" ({last['reason']})" if last["reason"] else ""
    size = f"{report['total_bytes'] / 2**30:.2f}"
    return [one["agent"], str(report["n_artifacts"]), size, oldest + never, scrub, str(len(report["damaged"]))]


def _time(at_utc_ns: int) -> str:
    return f"{datetime.fromtimestamp(at_utc_ns / NS_PER_S, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"
