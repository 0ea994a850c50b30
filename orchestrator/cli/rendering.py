"""What the campaign commands print when JSON was not asked for."""

from typing import Any

from rich.table import Table

from orchestrator.domain.analysis.interim import InterimAnalysis
from orchestrator.domain.analysis.utilisation import Utilisation
from orchestrator.domain.campaign.design_power import Resolution
from orchestrator.domain.campaign.dry_run import SpecCheck, SpecPlan
from orchestrator.domain.campaign.fit import ConfigurationFit
from orchestrator.domain.campaign.planner import CampaignPlan
from shared.kernel.visible import visible_line
from shared.screen import Screen, say


def print_campaigns(campaigns: list[dict[str, Any]]) -> None:
    """Print the list of campaigns."""
    table = Table("campaign", "state", "runs", "reason")
    for one in campaigns:
        table.add_row(one["id"], one["state"], f"{one['runs_done']}/{one['runs_total']}", one["reason"])
    Screen(soft_wrap=True).print(table)


def print_status(status: dict[str, Any]) -> None:
    """Print where a campaign is."""
    if not status["readable"]:
        say(f"{status['id']}: {status['state']}, {status['runs_done']} runs done")
        say(f"  why:   {visible_line(status['reason'])}")
        return
    say(f"{status['id']}: {status['state']}, {status['runs_done']} of {status['runs_total']} runs done")
    if status["request"] != "none":
        say(f"  asked: {status['request']}, obeyed after the present run")
    if status["step"]:
        say(f"  now:   {status['step']}")
    if status["eta_s"] is not None:
        say(f"  left:  {span(status['eta_s'])}")
    if status["utilisation"] is not None:
        say(f"  {Utilisation.model_validate(status['utilisation'], extra='ignore').sentence()}")
    for analysis in status["interim_analyses"][-1:] if status["state"] == "running" else ():
        say(f"  interim analysis:  {InterimAnalysis.model_validate(analysis, extra='ignore').sentence()}")
    for one in status["deliveries"]:
        vain = f", {one['failed']} cheaper method(s) failed" if one["failed"] else ""
        say(
            f"  sent:  {one['net_bytes']} bytes to {one['node']} for {one['times']} model(s) by {one['method']}"
            f" ({one['file_bytes']} bytes of files){vain}"
        )
    if status["reason"]:
        say(f"  why:   {visible_line(status['reason'])}")


def print_check(found: SpecCheck) -> None:
    """Print what a spec runs."""
    say(f"{found.id}: {len(found.configurations)} configurations x {found.repetitions}, {found.runs} runs")
    say(f"  {', '.join(found.configurations)}")
    print_memory(found.memory)


def print_memory(fits: tuple[ConfigurationFit, ...]) -> None:
    """Print on how many nodes each configuration is served and what the fullest of them needs."""
    if not fits:
        return
    table = Table("configuration", "nodes", "fullest node", "needs", "can give", "all nodes", "file")
    for fit in fits:
        if not fit.nodes:
            table.add_row(fit.configuration, "", "", f"not known: {fit.problem}")
            continue
        fullest = max(fit.nodes, key=lambda node: node.needed / max(node.usable, 1))
        bound = "at most " if fit.at_most else ""
        table.add_row(
            fit.configuration, str(len(fit.nodes)), fullest.node, f"{bound}{size(fullest.needed)}",
            size(fullest.usable), size(fit.needed), size(fit.file_bytes),
        )  # fmt: skip
    Screen(soft_wrap=True).print(table)


def print_plan(found: SpecPlan) -> None:
    """Print what a spec will run and what it can show."""
    print_check(found)
    methods = ("as listed", "backwards")
    say(f"order     {', '.join(f'repetition {one + 1} {methods[one % 2]}' for one in range(found.repetitions))}")
    if found.plan is None:
        say(f"duration  at least {span(found.waiting_seconds)}, what the spec says to wait; no rates are known:")
        say("          give --like ID or --from DIR of a measured (even short) campaign, or --rates four-pi5|FILE")
    else:
        say(f"rates     from {found.rates_from}")
        print_costs(found.plan)
        print_questions(found)
    if found.resolution is not None:
        print_resolution(found.resolution, found.expected.comparisons)
    for day in found.plan.further if found.plan is not None else ():
        say(
            f"further   {day.days} more day{'s' if day.days > 1 else ''}: {day.repetitions} repetitions resolve"
            f" {day.smallest_effect:.1%}"
        )
    for warning in found.plan.warnings if found.plan is not None else ():
        say(f"warning   {warning}")
    for source in found.rates_sources:
        say(f"source    {source}")


_WHERE = {
    "cluster": "asked of the cluster in every repetition (the literal protocol)",
    "once": "asked of the cluster once",
    "scorers": "answered by scorers behind the measurement",
}


def print_questions(found: SpecPlan) -> None:
    """Print where the questions are answered, what that takes, and what the literal protocol would."""
    assert found.plan is not None
    made = found.plan
    n = sum(found.questions.values())
    scorers = "" if made.scorer_seconds is None else f", {span(made.scorer_seconds)} of scorers beside it"
    say(
        f"questions {n} a configuration, {_WHERE[found.where]}: {span(made.cluster_questions_seconds)} of the"
        f" cluster{scorers}; windows that measure energy: {span(made.windows_seconds)}"
    )
    if found.where != "cluster":
        say(f"literal   {span(made.literal_duration_seconds)} if every repetition asked every question of the cluster")
    say(f"critical  {made.critical_path}")


def print_costs(plan: CampaignPlan) -> None:
    """Print duration, energy, disk and network."""
    say(f"duration  {span(plan.duration_seconds)}: {plan.runs} runs of {span(plan.run_seconds)}")
    say(f"energy    {plan.energy_joules / 3.6e6:.3g} kWh ({plan.energy_joules:.3g} J)")
    say(
        f"disk      orchestrator {size(plan.disk_bytes_orchestrator)}, each node with the engine"
        f" {size(plan.disk_bytes_node)}, surgeon {size(plan.disk_bytes_surgeon)}"
    )
    say(f"network   {size(plan.network_bytes)}")


def print_resolution(found: Resolution, comparisons: int) -> None:
    """Print what a design can show."""
    say(
        f"resolves  an EPI lower by {found.smallest_effect:.1%} (80 % power, {comparisons} comparisons); one sigma of a"
        f" ratio {found.relative_uncertainty:.2%}: energy {found.energy_part:.2%}, accuracy {found.accuracy_part:.2%}"
    )


def span(seconds: float) -> str:
    """Return a duration in the unit that fits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def size(count: int) -> str:
    """Return a number of bytes in the unit that fits it."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
