"""`epi results calc|validate|report|figures`: everything that is done with result files and needs no running lab."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table as RichTable

from orchestrator.cli.common import FolderArgument, JsonOption, err, must_exist, out, print_paths
from orchestrator.reports.rendering import number
from shared.bars import progress_bar
from shared.kernel.errors import ConfigurationError
from shared.kernel.visible import visible_line
from shared.screen import say_json

app = typer.Typer(no_args_is_help=True, help="Result files: calculate anew, judge, report, draw.")


@app.command()
def calc(
    folder: FolderArgument,
    write: Annotated[bool, typer.Option(help="Replace epi_NNN.json and the summary by what is calculated.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Calculate anew; exit code 1 when a written figure differs by more than 1e-9 relative."""
    from orchestrator.reports.summary import load_results, write_summary
    from orchestrator.results.files import list_runs
    from orchestrator.results.recompute import recompute_campaign, write_recomputed

    must_exist(folder)
    total = sum(1 for _ in list_runs(folder))
    if total == 0:
        raise ConfigurationError("no run_NNN.json in any subfolder", where=str(folder), hint="give OUT/<campaign>")
    rows, differing = [], 0
    with progress_bar("calculating", err) as publish:
        for done, one in enumerate(recompute_campaign(folder), start=1):
            differing += bool(one.differences)
            if write:
                write_recomputed(folder, one)
            rows.append(one)
            publish(done / total, f"{done} of {total} runs")
    complete = (folder / "campaign.json").exists()
    if write and complete:
        write_summary(folder)
    if as_json:
        runs = [
            {
                "configuration": one.run.configuration,
                "repetition": one.run.repetition,
                "epi": one.again.epi.value,
                "joules_per_token": one.again.epi.joules_per_token,
                "accuracy": one.again.accuracy.composite,
                "reason": one.again.no_epi_reason,
                "validity": one.again.evaluation.validity.verdict,
                "differences": list(one.differences),
            }
            for one in rows
        ]
        document: dict[str, object] = {"runs": runs}
        if complete and (write or differing == 0):
            results = load_results(folder).results
            document["results"] = {name: result.model_dump(mode="json") for name, result in results.items()}
        say_json(document, indent=2)
    else:
        _print_runs([
            (one.run.configuration, str(one.run.repetition), number(one.again.epi.value),
             number(one.again.epi.joules_per_token), number(one.again.accuracy.composite),
             one.again.evaluation.validity.verdict, one.again.no_epi_reason or "; ".join(one.differences)[:120])
            for one in rows
        ])  # fmt: skip
        out.print(f"{len(rows)} runs calculated anew, {differing} differ from what was written")
    if differing and not write:
        raise typer.Exit(1)


def _print_runs(rows: list[tuple[str, ...]]) -> None:
    table = RichTable("configuration", "rep", "EPI", "J/token", "accuracy", "validity", "remark")
    for row in rows:
        table.add_row(*row)
    out.print(table)


@app.command()
def validate(
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
        say_json({"ok": failed == 0, "defects": [d.model_dump(mode="json") for d in defects]}, indent=2)
    else:
        grouped: dict[tuple[str, str, str], list[Defect]] = {}
        for defect in defects:
            key = (defect.severity, re.sub(r"[\d.]+", "#", defect.what), defect.cure)  # alike but for their numbers
            grouped.setdefault(key, []).append(defect)
        for alike in grouped.values():
            first = alike[0]
            more = f" (and {len(alike) - 1} like it)" if len(alike) > 1 else ""
            cure = f" ({first.cure})" if first.cure else ""
            out.print(visible_line(f"{first.severity}  {first.where}{more}: {first.what}{cure}"))
        verdict = "FAIL" if failed else "FLAG" if defects else "PASS"
        out.print(f"{verdict}: {failed} failures, {len(defects) - failed} flags")
    if failed:
        raise typer.Exit(1)


@app.command()
def report(folder: FolderArgument) -> None:
    """Write the report beside the results; the same files give the same bytes."""
    from orchestrator.reports.report import write_report
    from orchestrator.reports.summary import write_summary

    must_exist(folder)
    with err.status("writing the report"):
        paths = (*write_summary(folder), *write_report(folder))
    print_paths(paths)


@app.command()
def figures(folder: FolderArgument) -> None:
    """Write figures/ of a campaign; each has its caption beside it as text."""
    from orchestrator.reports.figures_more import campaign_drawings
    from orchestrator.reports.report import write_figures
    from orchestrator.results.read_model import load_results

    must_exist(folder)
    with err.status("drawing"):
        paths = write_figures(folder, campaign_drawings(load_results(folder)))
    print_paths(paths)


def _alone(command: Callable[..., None]) -> typer.Typer:
    """Return a command as an app of its own, for its former place: `epi calc` is `epi results calc` now."""
    alone = typer.Typer(help="Now in `epi results`.")
    alone.command()(command)
    return alone


former_calc = _alone(calc)
former_validate = _alone(validate)
former_report = _alone(report)
former_figures = _alone(figures)
