"""`epi campaign ...`: make, check, plan, start, watch and command campaigns through the orchestrator's API."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.campaign.rates_library import load_rates
from orchestrator.campaign.spec_file import load_spec
from orchestrator.campaign.spec_library import EXAMPLES, SpecLibrary
from orchestrator.cli.api import Api
from orchestrator.cli.follow import follow, print_results
from orchestrator.cli.lab import DemoOption, JsonOption, running_lab
from orchestrator.cli.reach import Reach, reaching
from orchestrator.cli.rendering import print_campaigns, print_check, print_plan, print_status
from orchestrator.domain.campaign.dry_run import SpecCheck, SpecPlan, check, spec_plan
from orchestrator.domain.campaign.hardware_plan import hardware_plan
from orchestrator.domain.campaign.rates import HardwareRates
from shared.files.atomic import write_file
from shared.kernel.errors import ConfigurationError
from shared.screen import Screen, say, say_json

app = typer.Typer(help="Make, check, plan, start, watch and command campaigns.", no_args_is_help=True)

SpecArgument = Annotated[Path, typer.Argument(help="Campaign spec (TOML or JSON).")]
IdArgument = Annotated[str | None, typer.Argument(help="Campaign id; default: the newest.", show_default=False)]

console = Screen(stderr=True, soft_wrap=True)


def _examples(*lines: str) -> str:
    """Return the end of a command's help."""
    return "\n\n".join(["Examples:", *(f"  {line}" for line in lines)])


@app.command("new", epilog=_examples("epi campaign new paper paper.toml", "epi campaign new --list"))
def new(
    example: Annotated[str | None, typer.Argument(help="Example to begin with.", show_default=False)] = None,
    file: Annotated[Path | None, typer.Argument(help="File to write (.toml or .json).", show_default=False)] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Say which examples there are.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a campaign spec from an example, to be edited; nothing is started."""
    library = SpecLibrary(EXAMPLES)
    if list_only:
        if as_json:
            say_json(library.names())
        else:
            say("\n".join(library.names()))
        return
    if example is None or file is None:
        raise ConfigurationError("say which example and which file", hint=f"examples: {', '.join(library.names())}")
    source = library.path(example)
    as_toml = source.read_text(encoding="utf-8")
    text = load_spec(source).model_dump_json(indent=2) + "\n" if file.suffix == ".json" else as_toml
    try:
        write_file(file, text, overwrite=False)
    except OSError as error:
        raise ConfigurationError(f"cannot write the spec: {error.strerror}", where=str(file)) from error
    if as_json:
        say_json({"file": str(file), "example": example})
    else:
        say(f"{file}: edit it, then `epi campaign validate {file}` and `epi campaign start {file}`")


@app.command("validate", epilog=_examples(
    "epi campaign validate paper.toml --json", "epi campaign validate paper.toml --lab --url http://lab:8700",
))  # fmt: skip
@reaching
def validate(
    reach: Reach,
    spec: SpecArgument,
    lab: Annotated[bool, typer.Option("--lab", help="Also hold it against the lab: models, methods, nodes.")] = False,
) -> None:
    """Check a spec file and say what it would run; nothing is started. Without --lab no lab is needed."""
    given = load_spec(spec)
    if lab or reach.url is not None:
        answer = reach.api().call("POST", "/v1/specs/validate", given.model_dump(mode="json"))
        found = SpecCheck.model_validate(answer, extra="ignore")
    else:
        found = check(given)
    if reach.as_json:
        say_json(found.model_dump(mode="json"))
    else:
        print_check(found)
        say(f"  order, duration and resolution: `epi campaign plan {spec}`")


@app.command("plan", epilog=_examples(
    "epi campaign plan paper.toml --rates four-pi5", "epi campaign plan paper.toml --from results/demo-20261122-003539",
    "epi campaign plan paper.toml --like pilot --url http://lab:8700 --json",
))  # fmt: skip
@reaching
def plan(
    reach: Reach,
    spec: SpecArgument,
    like: Annotated[
        str | None, typer.Option(help="Measured campaign of the orchestrator to take rates from.", metavar="ID")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder of a measured campaign to take rates from.", metavar="DIR")
    ] = None,
    rates: Annotated[
        str | None, typer.Option(help="Published rates by name (four-pi5), or a TOML file.", metavar="NAME|FILE")
    ] = None,
    base_bytes: Annotated[int, typer.Option(min=0, help="With --from: size of the quantised base model.")] = 0,
) -> None:
    """Say what will run in which order, how long, on which disk, and what the design can show; nothing is started."""
    if sum(given is not None for given in (like, source, rates)) > 1:
        raise ConfigurationError("rates come from one place", where="plan", hint="give one of --like, --from, --rates")
    loaded = load_spec(spec)
    if like is not None:
        answer = reach.api().call("POST", f"/v1/specs/plan?like={like}", loaded.model_dump(mode="json"))
        planned = SpecPlan.model_validate(answer, extra="ignore")
    elif source is not None:
        from orchestrator.results.rates import measured_plan
        from orchestrator.results.read_model import load_results

        planned = measured_plan(loaded, load_results(source), base_bytes)
    elif rates is not None:
        found = load_rates(rates)
        planned = (
            hardware_plan(loaded, found)
            if isinstance(found, HardwareRates)
            else spec_plan(loaded, rates=found, rates_from=rates)
        )
    else:
        planned = spec_plan(loaded)
    reach.show(planned.model_dump(mode="json"), lambda _: print_plan(planned))


@app.command(
    "start", epilog=_examples("epi campaign start paper.toml", "epi campaign start paper.toml --url http://lab:8700")
)
@reaching
def start(reach: Reach, spec: SpecArgument) -> None:
    """Create and start a campaign from a spec file; the same spec twice is one campaign."""
    reach.show(reach.api().call("POST", "/v1/campaigns", load_spec(spec).model_dump(mode="json")), print_status)


@app.command("list", epilog=_examples("epi campaign list --json"))
@reaching
def list_campaigns(reach: Reach) -> None:
    """List campaigns, newest first."""
    reach.show(reach.api().call("GET", "/v1/campaigns"), print_campaigns)


@app.command("status", epilog=_examples("epi campaign status", "epi campaign status paper --json"))
@reaching
def status(reach: Reach, campaign: IdArgument = None) -> None:
    """Show where a campaign is."""
    api = reach.api()
    reach.show(api.call("GET", f"/v1/campaigns/{reach.pick(api, campaign)}"), print_status)


@app.command("results", epilog=_examples("epi campaign results paper"))
@reaching
def results(reach: Reach, campaign: IdArgument = None) -> None:
    """Print the table of a campaign."""
    api = reach.api()
    reach.show(api.call("GET", f"/v1/campaigns/{reach.pick(api, campaign)}/results"), print_results)


@app.command("pause", epilog=_examples("epi campaign pause", "epi campaign pause paper"))
@reaching
def pause(reach: Reach, campaign: IdArgument = None) -> None:
    """Ask for a pause after the present run."""
    _ask(reach, campaign, "pause")


@app.command("cancel", epilog=_examples("epi campaign cancel paper"))
@reaching
def cancel(reach: Reach, campaign: IdArgument = None) -> None:
    """Ask a campaign to end after the present run; what is measured is kept."""
    _ask(reach, campaign, "cancel")


@app.command("retry", epilog=_examples("epi campaign retry paper"))
@reaching
def retry(reach: Reach, campaign: IdArgument = None) -> None:
    """Try the failed runs of a campaign again; finished runs are kept."""
    _ask(reach, campaign, "retry")


@app.command("resume", epilog=_examples("epi campaign resume", "epi campaign resume paper --json"))
@reaching
def resume(reach: Reach, campaign: IdArgument = None, demo: DemoOption = None) -> None:
    """Let a campaign go on and follow it; a one-machine lab that is not running is started and stopped again.

    With --json it is not followed: its status is printed at once; the lab must be running.
    """
    if reach.as_json:
        _ask(reach, campaign, "resume")
    elif reach.url is not None:
        _resume(reach, campaign)
    else:
        reach.api()  # says so when nothing was ever started there
        with running_lab(reach.out, demo):
            _resume(reach, campaign)


@app.command("export", epilog=_examples("epi campaign export paper.tar.gz --campaign paper"))
@reaching
def export(
    reach: Reach,
    file: Annotated[Path, typer.Argument(help="Archive to write (.tar.gz).")],
    campaign: Annotated[str | None, typer.Option("--campaign", help="Campaign id; default: the newest.")] = None,
) -> None:
    """Bring the whole result tree of a campaign as one archive."""
    api = reach.api()
    name = reach.pick(api, campaign)
    with console.status(f"exporting {name}"):
        size = api.download(f"/v1/campaigns/{name}/export", file)
    answer = {"campaign": name, "file": str(file), "size_bytes": size}
    reach.show(answer, lambda _: say(f"{file}: {size} bytes"))


def _ask(reach: Reach, campaign: str | None, what: str) -> None:
    api = reach.api()
    reach.show(api.call("POST", f"/v1/campaigns/{reach.pick(api, campaign)}/{what}"), print_status)


def _resume(reach: Reach, campaign: str | None) -> None:
    api = reach.api()
    name = reach.pick(api, campaign)
    if api.call("GET", f"/v1/campaigns/{name}")["state"] != "finished":
        api.call("POST", f"/v1/campaigns/{name}/resume")
    finish(api, name)


def finish(api: Api, campaign: str) -> None:
    """Follow a campaign to its end and print its table; exit code 1 unless it finished."""
    last = follow(api, campaign, console)
    print_results(api.call("GET", f"/v1/campaigns/{campaign}/results"))
    if last["state"] != "finished":
        console.print(f"{campaign} is {last['state']}:", style="red", end=" ")
        console.print(last["reason"])
        raise typer.Exit(1)
