"""`epi campaign ...`: start, watch and command campaigns through the orchestrator's API."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from orchestrator.campaign.spec_file import load_spec
from orchestrator.cli.api import Api, find_api
from orchestrator.cli.follow import follow, print_results
from orchestrator.cli.lab import DemoOption, JsonOption, OutOption, running_lab
from orchestrator.domain.schedule import configurations_of, runs_total
from orchestrator.domain.stopping import CampaignLook
from shared.errors import ConfigurationError

EXAMPLES = Path(__file__).parents[1] / "campaign" / "examples"

app = typer.Typer(help="Start, watch and command campaigns.", no_args_is_help=True)

UrlOption = Annotated[str | None, typer.Option("--url", help="Orchestrator of another machine, e.g. http://lab:8700.")]
TokenOption = Annotated[Path | None, typer.Option("--token-file", help="Token for --url (or EPI_TOKEN).")]
SpecArgument = Annotated[Path, typer.Argument(help="Campaign spec (TOML).")]
IdArgument = Annotated[str | None, typer.Argument(help="Campaign id; default: the newest.", show_default=False)]

console = Console(stderr=True, highlight=False, soft_wrap=True)


@app.command("new")
def new(
    example: Annotated[str, typer.Argument(help="Example to begin with: paper or baseline-study.")],
    file: Annotated[Path, typer.Argument(help="Spec file to write.")],
) -> None:
    """Write a campaign spec from an example, to be edited; nothing is started."""
    examples = {path.stem: path for path in EXAMPLES.glob("*.toml")}
    if example not in examples:
        raise ConfigurationError("no such example", where=example, hint=f"known: {', '.join(sorted(examples))}")
    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(examples[example].read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot write the spec: {error.strerror}", where=str(file)) from error
    print(f"{file}: edit it, then `epi campaign validate {file}` and `epi campaign start {file}`")


@app.command("validate")
def validate(spec: SpecArgument, as_json: JsonOption = False) -> None:
    """Check a spec file and say what it would run; nothing is started."""
    loaded = load_spec(spec)
    configurations = configurations_of(loaded)
    if as_json:
        print(json.dumps({
            "id": loaded.id, "spec_hash": loaded.spec_hash(), "runs": runs_total(loaded),
            "configurations": [one.id for one in configurations],
        }))  # fmt: skip
        return
    print(f"{loaded.id}: {len(configurations)} configurations x {loaded.repetitions}, {runs_total(loaded)} runs")
    print(f"  {', '.join(one.id for one in configurations)}")
    print(f"  duration and resolution: `epi plan --configs {loaded.configurations} --reps {loaded.repetitions}`")


@app.command("start")
def start(
    spec: SpecArgument,
    out: OutOption = Path("results"),
    url: UrlOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create and start a campaign from a spec file."""
    api = find_api(out, url, token_file)
    _show(api.call("POST", "/v1/campaigns", load_spec(spec).model_dump(mode="json")), as_json)


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="Archive to write (.tar.gz).")],
    campaign: Annotated[str | None, typer.Option("--campaign", help="Campaign id; default: the newest.")] = None,
    out: OutOption = Path("results"),
    url: UrlOption = None,
    token_file: TokenOption = None,
) -> None:
    """Bring the whole result tree of a campaign as one archive."""
    api = find_api(out, url, token_file)
    name = _pick(api, campaign)
    with console.status(f"exporting {name}"):
        size = api.download(f"/v1/campaigns/{name}/export", file)
    print(f"{file}: {size} bytes")


@app.command("list")
def list_campaigns(
    out: OutOption = Path("results"), url: UrlOption = None, token_file: TokenOption = None, as_json: JsonOption = False
) -> None:
    """List campaigns, newest first."""
    campaigns = find_api(out, url, token_file).call("GET", "/v1/campaigns")
    if as_json:
        print(json.dumps(campaigns))
        return
    table = Table("campaign", "state", "runs", "reason")
    for one in campaigns:
        table.add_row(one["id"], one["state"], f"{one['runs_done']}/{one['runs_total']}", one["reason"])
    Console(soft_wrap=True).print(table)


@app.command("status")
def status(
    campaign: IdArgument = None,
    out: OutOption = Path("results"),
    url: UrlOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where a campaign is."""
    api = find_api(out, url, token_file)
    _show(api.call("GET", f"/v1/campaigns/{_pick(api, campaign)}"), as_json)


@app.command("results")
def results(
    campaign: IdArgument = None,
    out: OutOption = Path("results"),
    url: UrlOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the table of a campaign."""
    api = find_api(out, url, token_file)
    found = api.call("GET", f"/v1/campaigns/{_pick(api, campaign)}/results")
    if as_json:
        print(json.dumps(found))
    else:
        print_results(found)


@app.command("pause")
def pause(
    campaign: IdArgument = None,
    out: OutOption = Path("results"),
    url: UrlOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a pause after the present run."""
    api = find_api(out, url, token_file)
    _show(api.call("POST", f"/v1/campaigns/{_pick(api, campaign)}/pause"), as_json)


@app.command("cancel")
def cancel(
    campaign: IdArgument = None,
    out: OutOption = Path("results"),
    url: UrlOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a campaign to end after the present run; what is measured is kept."""
    api = find_api(out, url, token_file)
    _show(api.call("POST", f"/v1/campaigns/{_pick(api, campaign)}/cancel"), as_json)


@app.command("resume")
def resume(
    campaign: IdArgument = None,
    out: OutOption = Path("results"),
    demo: DemoOption = None,
    url: UrlOption = None,
    token_file: TokenOption = None,
) -> None:
    """Let a campaign go on and follow it; a one-machine lab that is not running is started and stopped again."""
    if url is not None:
        _resume(find_api(out, url, token_file), campaign)
        return
    find_api(out, None, None)  # says so when nothing was ever started there
    with running_lab(out, demo):
        _resume(find_api(out, None, None), campaign)


@app.command("retry")
def retry(
    campaign: IdArgument = None,
    out: OutOption = Path("results"),
    url: UrlOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try the failed runs of a campaign again; finished runs are kept."""
    api = find_api(out, url, token_file)
    name = _pick(api, campaign)
    if (state := api.call("GET", f"/v1/campaigns/{name}")["state"]) not in ("failed", "cancelled"):
        raise ConfigurationError(f"nothing to retry: the campaign is {state}", where=name)
    _show(api.call("POST", f"/v1/campaigns/{name}/resume"), as_json)


def _resume(api: Api, campaign: str | None) -> None:
    name = _pick(api, campaign)
    if api.call("GET", f"/v1/campaigns/{name}")["state"] != "finished":
        api.call("POST", f"/v1/campaigns/{name}/resume")
    finish(api, name)


def finish(api: Api, campaign: str) -> None:
    """Follow a campaign to its end and print its table; exit code 1 unless it finished."""
    status = follow(api, campaign, console)
    print_results(api.call("GET", f"/v1/campaigns/{campaign}/results"))
    if status["state"] != "finished":
        console.print(f"[red]{campaign} is {status['state']}:[/red] {status['reason']}")
        raise typer.Exit(1)


def _pick(api: Api, campaign: str | None) -> str:
    if campaign is not None:
        return campaign
    campaigns = api.call("GET", "/v1/campaigns")
    if not campaigns:
        raise ConfigurationError(
            "there is no campaign yet", hint="`epi demo` runs one, `epi campaign start SPEC` starts one"
        )
    return str(campaigns[0]["id"])


def _show(status: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(status))
        return
    print(f"{status['id']}: {status['state']}, {status['runs_done']} of {status['runs_total']} runs done")
    if status["request"] != "none":
        print(f"  asked: {status['request']}, obeyed after the present run")
    if status["step"]:
        print(f"  now:   {status['step']}")
    if status["eta_s"] is not None:
        print(f"  left:  {status['eta_s'] / 60:.1f} min")
    for look in status["looks"][-1:] if status["state"] == "running" else ():
        print(f"  look:  {CampaignLook.model_validate(look).sentence()}")
    if (used := status["utilisation"]) is not None:
        print(f"  used:  {used['share']:.0%} of the cluster's time in windows and the waits that they need")
    for one in status["deliveries"]:
        vain = f", {one['failed']} cheaper way(s) failed" if one["failed"] else ""
        print(
            f"  sent:  {one['net_bytes']} bytes to {one['node']} for {one['times']} model(s) by {one['way']}"
            f" ({one['file_bytes']} bytes of files){vain}"
        )
    if status["reason"]:
        print(f"  why:   {status['reason']}")
