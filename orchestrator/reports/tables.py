"""The tables of a campaign as rows of text, shared by summary, Markdown and HTML report."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator.domain.analysis.deliveries import delivery_totals
from orchestrator.domain.analysis.statistics import Interval
from orchestrator.domain.campaign.matrix import reference_of
from orchestrator.domain.run.disturbances import foreign_load
from orchestrator.domain.run.evaluate import RunEvaluation
from orchestrator.domain.run.records import RunInput
from orchestrator.domain.run.validity import agents_inside
from orchestrator.reports import markdown
from orchestrator.reports.rendering import change_of_log, number
from orchestrator.results.read_model import CampaignResults
from shared.kernel.records import Configuration


@dataclass(frozen=True)
class Table:
    """A table with a title; the first column is text, the others numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> list[str]:
        """Return the lines of a Markdown table."""
        align = ("---", *("---:",) * (len(self.head) - 1))
        return [f"| {' | '.join(map(markdown.cell, row))} |" for row in (self.head, align, *self.rows)]


def results_table(data: CampaignResults) -> Table:
    """Return the headline table: what may enter it passed validity; the rest says why not."""
    return Table(
        title="EPI",
        head=("configuration", "n", "EPI", "EPI / reference", "J/token", "J/token / reference", "accuracy", "verdict"),
        rows=tuple(_result_row(data, item) for item in data.configurations),
        note="Ratios are to the baseline of the same layout and serving, with 95 % intervals; verdicts are corrected"
        f" (Holm) for {data.statistics.n_comparisons} comparisons; in brackets the smallest change of EPI that would"
        " have been named with 80 % power.",
    )


def servings_table(data: CampaignResults) -> Table | None:
    """Return how each configuration was served and what it is compared with; None where all are served alike."""
    if not any(item.serving for item in data.configurations):
        return None
    return Table(
        title="Servings",
        head=("configuration", "compared with", "energy on", "accuracy on", "nodes", "K", "quantisation"),
        rows=tuple(_serving_row(data, item) for item in data.configurations),
        note="Energy is that of the nodes in use. K is the number of active experts a token; - is the model's own.",
    )


def methods_table(data: CampaignResults) -> Table | None:
    """Return the comparison of methods at equal depth; None where only one was measured."""
    if not data.method_pairs:
        return None
    return Table(
        title="Methods at equal depth",
        head=("depth", "layers", "first", "second", "EPI, first against second", "p (Holm)", "verdict on the first"),
        rows=tuple(
            (
                str(pair.depth), pair.group, pair.first, pair.second,
                f"{change_of_log(pair.log_epi_ratio)} [{change_of_log(pair.interval[0])},"
                f" {change_of_log(pair.interval[1])}]",
                f"{pair.adjusted_p_value:.2g}", pair.comparison,
            )
            for pair in data.method_pairs
        ),
        note="Pairs that differ only in which experts went: same questions, interleaved repetitions, the reference"
        " cancels. Intervals are 95 % of each pair alone; verdicts are corrected for all pairs. The middle group has"
        " about twice as many layers as early or late.",
    )  # fmt: skip


def _serving_row(data: CampaignResults, item: Configuration) -> tuple[str, ...]:
    reference = reference_of(item)
    first = data.inputs[item.id][0] if data.inputs.get(item.id) else None
    served = {} if first is None else first.provenance.windows
    scored = served.get("score") if first is None or first.answers is None else first.answers.served
    nodes = item.n_nodes or (len(served["decode"].nodes) if "decode" in served else None)
    return (
        item.id, "-" if reference == item.id else reference, item.engine,
        "-" if scored is None else scored.engine, "all" if nodes is None else str(nodes),
        "-" if item.experts_per_token is None else str(item.experts_per_token), item.quantization,
    )  # fmt: skip


def accuracy_table(data: CampaignResults) -> Table:
    """Return accuracy per task and its paired difference."""
    return Table(
        title="Accuracy",
        head=("configuration", *data.campaign.protocol.accuracy, "composite", "difference"),
        rows=tuple(_accuracy_row(data, item) for item in data.configurations if item.id in data.runs),
        note=data.campaign.protocol.accuracy_note,
    )


def energy_table(data: CampaignResults) -> Table:
    """Return energies by window, medians over repetitions."""
    return Table(
        title="Energy by window",
        head=(
            "configuration", "idle W", "prefill J/token", "decode J/token", "net J/token", "J/question", "J/correct",
            "peak W", "lag s",
        ),
        rows=tuple(_energy_row(data, item) for item in data.configurations if item.id in data.runs),
        note="Medians over repetitions, gross AC energy; net: idle power x time subtracted from the headline basis.",
    )  # fmt: skip


def deliveries_table(data: CampaignResults) -> Table:
    """Return how the models reached the nodes, bytes over the net by node and method, base model first."""
    groups = [("base model", list(data.campaign.base_deliveries.items()))]
    for item in data.configurations:
        groups.append((item.id, [pair for run in data.inputs.get(item.id, ()) for pair in run.deliveries.items()]))
    rows = []
    failures: list[str] = []
    for name, pairs in groups:
        for total in delivery_totals(pairs):
            rows.append((name, total.node, total.method, str(total.times), str(total.net_bytes), str(total.file_bytes)))
        failures += [
            f"{name}, {node}: {failure.method} failed ({failure.reason})"
            for node, one in pairs
            for failure in one.failed
        ]
    return Table(
        title="How the models reached the nodes",
        head=("model", "node", "method", "times", "bytes over the net", "bytes of files"),
        rows=tuple(rows),
        note="The cheapest method that was possible. here: it was there already; plan: made on the node from the base"
        " model, its hash equal to the surgeon's; http, rsync: the file." + "".join(f" {line}." for line in failures),
    )


def conditions_table(data: CampaignResults) -> Table:
    """Return under which conditions the runs were measured; what nothing measured is n/a."""
    told = any(run.window_loads or run.clocks for group in data.inputs.values() for run in group)
    disturbances = ("others' CPU, cores", "clock drift ms") if told else ()
    return Table(
        title="Conditions",
        head=(
            "configuration", "wait s", "steady", "agents' CPU %", "agents wrote B", *disturbances, "room C",
            "humidity %",
        ),
        rows=tuple(
            _conditions_row(one.id, data.inputs[one.id], disturbances=told)
            for one in data.configurations
            if one.id in data.runs
        ),
        note="Medians over repetitions; the agents' CPU time (of one core) and disk writes are the worst of all nodes"
        f" inside windows{', and so are other programs and the drift of clocks' if told else ''}. n/a: nobody asked or"
        " nothing measures it.",
    )  # fmt: skip


def budget_table(data: CampaignResults) -> Table:
    """Return the uncertainty budget of each configuration's EPI, relative, in percent."""
    rows = []
    names: tuple[str, ...] = ()
    for item in data.configurations:
        own = data.results[item.id].budget
        if own is None:
            continue
        names = tuple(part.name for part in own.components)
        cells = [_percent(part.relative) + ("" if part.counted else "*") for part in own.components]
        rows.append((item.id, *cells, _percent(own.combined), number(own.coverage_factor, 3), _percent(own.expanded)))
    return Table(
        title="Uncertainty budget",
        head=("configuration", *names, "combined", "k", "expanded (95 %)"),
        rows=tuple(rows),
        note="Relative standard uncertainties of EPI in percent (GUM). * contained in the repetition spread, not"
        " counted again. The instrument's gain cancels in ratios.",
    )


def _result_row(data: CampaignResults, item: Configuration) -> tuple[str, ...]:
    result = data.results[item.id]
    verdict = str(result.comparison)
    if result.comparison == "unknown":
        verdict = result.reason or "unknown"
    elif result.comparison != "reference" and result.smallest_resolvable is not None:
        verdict += f" ({result.smallest_resolvable:.1%})"
    repetitions = str(result.repetitions)
    if result.valid_repetitions != result.repetitions:
        repetitions = f"{result.valid_repetitions} of {result.repetitions}"
    return (
        item.id,
        repetitions,
        number(result.epi),
        _ratio(result.epi_ratio, result.epi_ratio_interval),
        number(result.joules_per_token),
        _ratio(result.joules_ratio, result.joules_ratio_interval),
        "-" if result.accuracy is None else f"{result.accuracy:.3f}",
        verdict,
    )


def _accuracy_row(data: CampaignResults, item: Configuration) -> tuple[str, ...]:
    accuracy, result = data.runs[item.id][0].accuracy, data.results[item.id]
    values = (*(accuracy.shares.get(name) for name in data.campaign.protocol.accuracy), accuracy.composite)
    return (
        item.id,
        *("-" if value is None else f"{value:.3f}" for value in values),
        _difference(result.accuracy_difference, result.accuracy_difference_interval),
    )


def _energy_row(data: CampaignResults, item: Configuration) -> tuple[str, ...]:
    runs = data.runs[item.id]

    def middle(values: Sequence[float | None]) -> str:
        known = [value for value in values if value is not None]
        return number(median(known)) if known else "-"

    def per_token(run: RunEvaluation, basis: str) -> float | None:
        return next((value.joules_per_token for name, value in run.epi_by_basis.items() if name == basis), None)

    return (
        item.id,
        middle([None if run.idle_watts is None else sum(run.idle_watts.values()) for run in runs]),
        middle([per_token(run, "prefill_prompt") for run in runs]),
        middle([per_token(run, "decode_generated") for run in runs]),
        middle([run.net_joules_per_token for run in runs]),
        middle([run.joules_per_question for run in runs]),
        middle([run.joules_per_correct for run in runs]),
        middle([None if run.headline is None else run.headline.peak_watts_cluster for run in runs]),
        middle([run.lag.lag_s if run.lag.accepted else None for run in runs]),
    )


def _conditions_row(name: str, runs: Sequence[RunInput], *, disturbances: bool) -> tuple[str, ...]:
    waits = [run.steady_state for run in runs if run.steady_state is not None]
    asked = [wait.steady for wait in waits if wait.steady is not None]
    inside = [one for run in runs for one in agents_inside(run).values()]
    others = [load.cpu_share for run in runs for window in run.window_loads for load in foreign_load(window).values()]
    drifts = [abs(clock.drift_s) for run in runs for clock in run.clocks.values()]

    def middle(values: Sequence[float | None]) -> str:
        known = [value for value in values if value is not None]
        return number(median(known)) if known else "n/a"

    return (
        name,
        middle([wait.duration_s for wait in waits]),
        f"{sum(asked)} of {len(asked)}" if asked else "n/a",
        f"{100 * max(one.agent_cpu_share for one in inside):.3f}" if inside else "n/a",
        str(max(one.agent_written_bytes for one in inside)) if inside else "n/a",
        *(
            (f"{max(others):.2f}" if others else "n/a", f"{1e3 * max(drifts):.1f}" if drifts else "n/a")
            if disturbances
            else ()
        ),
        middle([run.environment.ambient_temp_c for run in runs]),
        middle([run.environment.ambient_humidity_percent for run in runs]),
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _ratio(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + ("" if interval is None else f" [{interval.low:.3f}, {interval.high:.3f}]")


def _difference(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "-"
    return f"{value:+.3f}" + ("" if interval is None else f" [{interval.low:+.3f}, {interval.high:+.3f}]")
