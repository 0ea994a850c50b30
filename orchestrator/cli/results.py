"""`epi calc|validate|report|figures|plan`: everything that is done with result files and needs no running lab."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import track
from rich.table import Table as RichTable

from orchestrator.cli.rendering import print_costs, print_resolution, span
from orchestrator.domain.campaign.design_power import Expectation
from orchestrator.domain.campaign.dry_run import FULL_SUITES
from orchestrator.domain.campaign.matrix import parse_selection
from orchestrator.domain.campaign.planner import PlanRequest, Rates, plan, propose
from orchestrator.domain.campaign.protocol import AccuracyField, AccuracyTask, default_accuracy
from orchestrator.domain.run.accuracy import normalised_weights
from orchestrator.reports.rendering import number
from shared.kernel.errors import ConfigurationError
from shared.kernel.settings import load_settings

calc = typer.Typer(help="Calculate every EPI of a result tree anew, from its run, trace and benchmark files alone.")
validate = typer.Typer(help="Judge a result tree that somebody sends: every defect, its place, its cure.")
report = typer.Typer(help="Write report.html, report.md and figures/ of a campaign.")
figures = typer.Typer(help="Write only the figures of a campaign, as SVG, PDF and PNG.")
plan_app = typer.Typer(help="Before a campaign: duration, joules, disk, network, and what it can resolve.")

FolderArgument = Annotated[Path, typer.Argument(help="Folder of one campaign: OUT/<campaign>.", metavar="DIR")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@calc.command()
def calc_command(
    folder: FolderArgument,
    write: Annotated[bool, typer.Option(help="Replace epi_NNN.json and the summary by what is calculated.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Calculate anew; exit code 1 when a written figure differs by more than 1e-9 relative."""
    from orchestrator.reports.summary import load_results, write_summary
    from orchestrator.results.files import list_runs
    from orchestrator.results.recompute import recompute_campaign, write_recomputed

    _must_exist(folder)
    total = sum(1 for _ in list_runs(folder))
    if total == 0:
        raise ConfigurationError("no run_NNN.json in any subfolder", where=str(folder), hint="give OUT/<campaign>")
    rows, differing = [], 0
    for run in track(recompute_campaign(folder), "calculating", total=total, console=err, transient=True):
        differing += bool(run.differences)
        if write:
            write_recomputed(folder, run)
        rows.append(run)
    complete = (folder / "campaign.json").exists()
    if write and complete:
        write_summary(folder)
    if as_json:
        runs = [
            {
                "configuration": run.configuration_id,
                "repetition": run.repetition,
                "epi": run.again.epi.value,
                "joules_per_token": run.again.epi.joules_per_token,
                "accuracy": run.again.accuracy.composite,
                "reason": run.again.no_epi_reason,
                "validity": run.again.validity.verdict,
                "differences": list(run.differences),
            }
            for run in rows
        ]
        document: dict[str, object] = {"runs": runs}
        if complete and (write or differing == 0):
            results = load_results(folder).results
            document["results"] = {name: result.model_dump(mode="json") for name, result in results.items()}
        typer.echo(json.dumps(document, indent=2))
    else:
        _print_runs([
            (run.configuration_id, str(run.repetition), number(run.again.epi.value),
             number(run.again.epi.joules_per_token), number(run.again.accuracy.composite),
             run.again.validity.verdict, run.again.no_epi_reason or "; ".join(run.differences)[:120])
            for run in rows
        ])  # fmt: skip
        out.print(f"{len(rows)} runs calculated anew, {differing} differ from what was written", markup=False)
    if differing and not write:
        raise typer.Exit(1)


def _print_runs(rows: list[tuple[str, ...]]) -> None:
    table = RichTable("configuration", "rep", "EPI", "J/token", "accuracy", "validity", "remark")
    for row in rows:
        table.add_row(*row)
    out.print(table)


@validate.command()
def validate_command(
    folder: FolderArgument,
    as_json: JsonOption = False,
    schemas: Annotated[Path | None, typer.Option(help="Also write the JSON Schemas into this folder.")] = None,
) -> None:
    """Judge a submission; exit code 1 when anything FAILs."""
    from orchestrator.results.json_schemas import write_schemas
    from orchestrator.results.validate import Defect, validate_submission

    if schemas is not None:
        write_schemas(schemas)
    with err.status("reading and calculating anew"):
        defects = validate_submission(folder)
    failed = sum(defect.severity == "FAIL" for defect in defects)
    if as_json:
        typer.echo(json.dumps({"ok": failed == 0, "defects": [d.model_dump(mode="json") for d in defects]}, indent=2))
    else:
        grouped: dict[tuple[str, str, str], list[Defect]] = {}
        for defect in defects:
            key = (defect.severity, re.sub(r"[\d.]+", "#", defect.what), defect.cure)  # alike but for their numbers
            grouped.setdefault(key, []).append(defect)
        for alike in grouped.values():
            first = alike[0]
            more = f" (and {len(alike) - 1} like it)" if len(alike) > 1 else ""
            cure = f" ({first.cure})" if first.cure else ""
            out.print(f"{first.severity}  {first.where}{more}: {first.what}{cure}", markup=False)
        verdict = "FAIL" if failed else "FLAG" if defects else "PASS"
        out.print(f"{verdict}: {failed} failures, {len(defects) - failed} flags", markup=False)
    if failed:
        raise typer.Exit(1)


@report.command()
def report_command(folder: FolderArgument) -> None:
    """Write the report beside the results; the same files give the same bytes."""
    from orchestrator.reports.report import write_report
    from orchestrator.reports.summary import write_summary

    _must_exist(folder)
    with err.status("writing the report"):
        paths = (*write_summary(folder), *write_report(folder))
    _print_paths(paths)


@figures.command()
def figures_command(folder: FolderArgument) -> None:
    """Write figures/ of a campaign; each has its caption beside it as text."""
    from orchestrator.reports.figures_more import campaign_drawings
    from orchestrator.reports.report import write_figures
    from orchestrator.results.read_model import load_results

    _must_exist(folder)
    with err.status("drawing"):
        paths = write_figures(folder, campaign_drawings(load_results(folder)))
    _print_paths(paths)


@plan_app.command()
def plan_command(
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder of an earlier campaign: its rates, spread, discordance.")
    ] = None,
    rates_file: Annotated[Path | None, typer.Option("--rates", help="TOML with the fields of Rates.")] = None,
    configs: Annotated[str, typer.Option(help="`all`, or configuration ids separated by commas.")] = "all",
    reps: Annotated[int, typer.Option(min=1, help="Repetitions of each configuration.")] = 3,
    questions: Annotated[int, typer.Option(min=2, help="Questions per task.")] = 500,
    target: Annotated[
        float | None, typer.Option(min=0.001, max=0.9, help="Also propose the shortest campaign for this EPI effect.")
    ] = None,
    interim: Annotated[
        Path | None,
        typer.Option(
            "--interim", "--look", help="Instead: may the running campaign in this folder stop after what it has?"
        ),
    ] = None,
    precision: Annotated[
        float | None, typer.Option(min=0.0001, help="With --interim: precise enough at this half-width of every ratio.")
    ] = None,
    base_bytes: Annotated[int, typer.Option(min=0, help="Size of the quantised base model.")] = 0,
    cv: Annotated[float | None, typer.Option(min=0, help="Repetition spread of J/token, relative.")] = None,
    accuracy: Annotated[float | None, typer.Option(min=0.01, max=1, help="Expected composite accuracy.")] = None,
    discordance: Annotated[
        float | None, typer.Option(min=0.0001, max=1, help="Share of questions a variant answers differently.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say how long a campaign takes, what it costs and what it can show, before it runs."""
    if interim is not None:
        _interim(interim, precision, as_json)
        return
    items = parse_selection(configs)
    comparisons = max(sum(item.depth > 0 for item in items), 1)
    rates, expected, accuracy_tasks = _rates(source, rates_file, base_bytes, comparisons)
    given = {"cv": cv, "accuracy": accuracy, "discordance": discordance}
    expected = expected.model_copy(update={name: value for name, value in given.items() if value is not None})
    weights = normalised_weights(accuracy_tasks)
    request = PlanRequest(
        configurations=len(items), repetitions=reps, questions=dict.fromkeys(weights, questions), weights=weights,
        rates=rates, expected=expected,
    )  # fmt: skip
    made = plan(request)
    proposal = None if target is None else propose(request, target, FULL_SUITES)
    if as_json:
        document = {"plan": _dump(made), "expected": _dump(expected), "proposal": _dump(proposal)}
        typer.echo(json.dumps(document, indent=2))
        return
    print_costs(made)
    if made.resolution is not None:
        print_resolution(made.resolution, comparisons)
    if made.stopping is not None:
        shares = ", ".join(f"{share:.0%}" for share in made.stopping.information)
        out.print(f"stopping  may be analysed after {shares} of the plan without more false alarms", markup=False)
    for warning in made.warnings:
        out.print(f"warning   {warning}", markup=False)
    if target is not None and proposal is None:
        out.print(f"no campaign of up to 10 repetitions and the full suites resolves {target:.1%}", markup=False)
    elif proposal is not None:
        sizes = ", ".join(f"{name} {n}" for name, n in proposal.plan.questions.items())
        out.print(
            f"proposal  for {proposal.target_effect:.1%}: {proposal.plan.repetitions} repetitions, {sizes} (stratified"
            f" by subject, seeded): {span(proposal.plan.duration_seconds)}, power {proposal.power:.0%}", markup=False,
        )  # fmt: skip


def _interim(folder: Path, precision: float | None, as_json: bool) -> None:
    from orchestrator.domain.analysis.interim import analyse_interim
    from orchestrator.results.read_model import load_results

    _must_exist(folder)
    data = load_results(folder)
    found = analyse_interim(data.statistics, data.campaign.repetitions, precision)
    if as_json:
        typer.echo(json.dumps(_dump(found), indent=2))
        return
    done, planned = found.repetitions_done, found.repetitions_planned
    out.print(f"after {done} of {planned} repetitions: {found.reason}", markup=False)
    out.print(f"established: {', '.join(found.established) or 'nothing yet'}", markup=False)
    out.print("the campaign may stop" if found.stop else "the campaign should go on", markup=False)


def _rates(
    source: Path | None, rates_file: Path | None, base_bytes: int, comparisons: int
) -> tuple[Rates, Expectation, dict[AccuracyField, AccuracyTask]]:
    if source is not None:
        from orchestrator.results.rates import measured_expectation, measured_rates
        from orchestrator.results.read_model import load_results

        _must_exist(source)
        data = load_results(source)
        expected = measured_expectation(data, comparisons)
        return measured_rates(data, base_bytes), expected, data.campaign.protocol.accuracy
    if rates_file is not None:
        return load_settings(Rates, rates_file), Expectation(comparisons=comparisons), default_accuracy()
    raise ConfigurationError(
        "nothing is known of the speed and the power", where="epi plan",
        hint="give --from OUT/<campaign> of an earlier (even short) campaign, or --rates FILE.toml",
    )  # fmt: skip


def _must_exist(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigurationError("no such folder", where=str(folder), hint="give OUT/<campaign>")


def _print_paths(paths: tuple[Path, ...]) -> None:
    for path in paths:
        out.print(str(path), markup=False)


def _dump(record: BaseModel | None) -> object:
    return None if record is None else record.model_dump(mode="json")
