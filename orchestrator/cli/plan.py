"""`epi plan`: before a campaign and without a lab, what a design costs and what it can resolve."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.campaign.rates_library import load_rates
from orchestrator.campaign.spec_file import load_spec
from orchestrator.campaign.spec_library import EXAMPLES
from orchestrator.cli.common import JsonOption, dump, must_exist, out
from orchestrator.cli.rendering import print_costs, print_resolution, span
from orchestrator.domain.campaign.design_power import Expectation
from orchestrator.domain.campaign.dry_run import SUITE_SIZES
from orchestrator.domain.campaign.hardware_plan import rates_of
from orchestrator.domain.campaign.matrix import parse_selection
from orchestrator.domain.campaign.planner import PlanRequest, plan, propose
from orchestrator.domain.campaign.protocol import AccuracyField, AccuracyTask, default_accuracy
from orchestrator.domain.campaign.rates import HardwareRates, Rates
from orchestrator.domain.run.accuracy import normalised_weights
from shared.screen import say, say_json

_EXPLANATION = """\
epi plan says how long a design takes, what it costs in joules and what it can resolve. It needs rates:

  epi plan --rates four-pi5                       published rates of four Raspberry Pi 5, windows of the paper's spec
  epi plan --from OUT/<campaign>                  rates of an earlier campaign, even a short one
  epi plan --rates four-pi5 --target 0.02         also propose the shortest campaign that resolves 2 % of EPI

The spec of a campaign is planned by:

  epi campaign new paper paper.toml
  epi campaign plan paper.toml --rates four-pi5"""

app = typer.Typer(help="Before a campaign: duration, joules, disk, network, and what it can resolve.")


@app.command()
def plan_command(
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder of an earlier campaign: its rates, spread, discordance.")
    ] = None,
    rates_file: Annotated[
        str | None, typer.Option("--rates", help="Published rates by name (four-pi5), or a TOML file.")
    ] = None,
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
    if source is None and rates_file is None:
        say(_EXPLANATION)
        return
    items = parse_selection(configs)
    comparisons = max(sum(item.is_pruned for item in items), 1)
    rates, expected, accuracy_tasks = _rates(source, rates_file, base_bytes, comparisons)
    given = {"cv": cv, "accuracy": accuracy, "discordance": discordance}
    expected = expected.model_copy(update={name: value for name, value in given.items() if value is not None})
    weights = normalised_weights(accuracy_tasks)
    request = PlanRequest(
        configurations=len(items), repetitions=reps, questions=dict.fromkeys(weights, questions), weights=weights,
        rates=rates, expected=expected,
    )  # fmt: skip
    made = plan(request)
    proposal = None if target is None else propose(request, target, SUITE_SIZES)
    if as_json:
        document = {"plan": dump(made), "expected": dump(expected), "proposal": dump(proposal)}
        say_json(document, indent=2)
        return
    print_costs(made)
    if made.resolution is not None:
        print_resolution(made.resolution, comparisons)
    if made.stopping is not None:
        shares = ", ".join(f"{share:.0%}" for share in made.stopping.information)
        out.print(f"stopping  may be analysed after {shares} of the plan without more false alarms")
    for warning in made.warnings:
        out.print(f"warning   {warning}")
    if target is not None and proposal is None:
        out.print(f"no campaign of up to 10 repetitions and the full suites resolves {target:.1%}")
    elif proposal is not None:
        sizes = ", ".join(f"{name} {n}" for name, n in proposal.plan.questions.items())
        out.print(
            f"proposal  for {proposal.target_effect:.1%}: {proposal.plan.repetitions} repetitions, {sizes} (stratified"
            f" by subject, seeded): {span(proposal.plan.duration_seconds)}, power {proposal.power:.0%}",
        )  # fmt: skip


def _interim(folder: Path, precision: float | None, as_json: bool) -> None:
    from orchestrator.domain.analysis.interim import analyse_interim
    from orchestrator.results.read_model import load_results

    must_exist(folder)
    data = load_results(folder)
    found = analyse_interim(data.statistics, data.campaign.repetitions, precision)
    if as_json:
        say_json(dump(found), indent=2)
        return
    done, planned = found.repetitions_done, found.repetitions_planned
    out.print(f"after {done} of {planned} repetitions: {found.reason}")
    out.print(f"established: {', '.join(found.established) or 'nothing yet'}")
    out.print("the campaign may stop" if found.stop else "the campaign should go on")


def _rates(
    source: Path | None, rates_file: str | None, base_bytes: int, comparisons: int
) -> tuple[Rates, Expectation, dict[AccuracyField, AccuracyTask]]:
    if source is not None:
        from orchestrator.results.rates import measured_expectation, measured_rates
        from orchestrator.results.read_model import load_results

        must_exist(source)
        data = load_results(source)
        expected = measured_expectation(data, comparisons)
        return measured_rates(data, base_bytes), expected, data.campaign.protocol.accuracy
    rates = load_rates(rates_file or "")
    if isinstance(rates, HardwareRates):
        spec = load_spec(EXAMPLES / "paper.toml")
        rates = rates_of(spec, rates)
    return rates, Expectation(comparisons=comparisons), default_accuracy()
