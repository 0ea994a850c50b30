"""A campaign read from its files with everything that is calculated from it: what tables, figures and reports show."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from orchestrator.domain.analysis.boards import BoardSaving, board_savings, board_uses
from orchestrator.domain.analysis.campaign_data import Answers
from orchestrator.domain.analysis.campaign_validity import check_campaign
from orchestrator.domain.analysis.curve import BestChance, OperatingPoint, all_series, best_chances, operating_point
from orchestrator.domain.analysis.decomposition import EnergyShares, Roofline, energy_shares, roofline
from orchestrator.domain.analysis.hypotheses import HypothesisTests, hypothesis_tests
from orchestrator.domain.analysis.iso_memory import IsoMemoryPair, iso_memory_pairs
from orchestrator.domain.analysis.methods import MethodPair, method_pairs
from orchestrator.domain.analysis.pareto import ParetoPoint, pareto_points
from orchestrator.domain.analysis.repetitions import judge_repetitions
from orchestrator.domain.analysis.statistics import CampaignStatistics, ConfigurationResult, campaign_statistics
from orchestrator.domain.analysis.utilisation import Utilisation, utilisation
from orchestrator.domain.campaign.matrix import in_matrix_order
from orchestrator.domain.run.accuracy import mark_of
from orchestrator.domain.run.evaluate import RunEvaluation
from orchestrator.domain.run.findings import Validity
from orchestrator.domain.run.records import RunInput
from orchestrator.results.files import list_runs, read_json, read_run
from orchestrator.results.schema import CampaignFile
from shared.kernel.records import Configuration


@dataclass(frozen=True)
class CampaignResults:
    """A campaign's configurations in matrix order, their runs, and lazily everything estimated from them."""

    folder: Path
    campaign: CampaignFile
    configurations: tuple[Configuration, ...]
    inputs: dict[str, tuple[RunInput, ...]]
    runs: dict[str, tuple[RunEvaluation, ...]]
    answers: dict[str, tuple[Answers, ...]]

    @cached_property
    def statistics(self) -> CampaignStatistics:
        """Estimates, intervals and verdicts."""
        interim_analyses = self.campaign.interim_analyses
        return campaign_statistics(
            self.configurations, self.runs, self.answers, self.campaign.protocol.accuracy,
            established=interim_analyses[-1].established if interim_analyses else None,
        )  # fmt: skip

    @property
    def repetitions(self) -> int:
        """Repetitions that the campaign was to have: fewer than planned when an interim analysis ended it."""
        interim_analyses = self.campaign.interim_analyses
        return (
            interim_analyses[-1].repetitions_done
            if interim_analyses and interim_analyses[-1].stop
            else self.campaign.repetitions
        )

    @property
    def results(self) -> dict[str, ConfigurationResult]:
        """The comparison of each configuration with its reference."""
        return self.statistics.results

    @cached_property
    def validity(self) -> Validity:
        """The verdict on the campaign as a whole."""
        return check_campaign(
            self.configurations, self.repetitions, self.inputs, self.runs, self.answers, self.statistics
        )

    @cached_property
    def hypotheses(self) -> HypothesisTests | None:
        """H1 to H4 as numbers; None without comparable runs."""
        found = self.statistics
        if found.data is None or found.terms is None or found.draws is None:
            return None
        return hypothesis_tests(found.data, found.terms, found.draws)

    @cached_property
    def operating_points(self) -> tuple[OperatingPoint, ...]:
        """One per layer group that has variants and a known spread."""
        data, draws = self.statistics.data, self.statistics.draws
        if data is None or draws is None:
            return ()
        points = (operating_point(data, draws, series) for series in all_series(data))
        return tuple(point for point in points if point is not None)

    @cached_property
    def method_pairs(self) -> tuple[MethodPair, ...]:
        """Methods compared pair by pair at equal depth; empty where only one was measured."""
        found = self.statistics
        if found.data is None or found.terms is None or found.draws is None:
            return ()
        return method_pairs(found.data, found.terms, found.draws)

    @cached_property
    def best_chances(self) -> tuple[BestChance, ...]:
        """The chance of each configuration to have the lowest EPI ratio."""
        data, draws = self.statistics.data, self.statistics.draws
        return () if data is None or draws is None else best_chances(data, draws)

    @cached_property
    def pareto(self) -> tuple[ParetoPoint, ...]:
        """All configurations in the plane of joules and accuracy."""
        found = self.statistics
        if found.data is None or found.terms is None or found.draws is None:
            return ()
        return pareto_points(found.data, found.draws, found.terms.energy)

    @cached_property
    def shares(self) -> tuple[EnergyShares, ...]:
        """Static and dynamic energy of each configuration with idle windows."""
        found = (energy_shares(item.id, self.runs.get(item.id, ())) for item in self.configurations)
        return tuple(share for share in found if share is not None)

    @cached_property
    def roofline(self) -> Roofline | None:
        """Overhead, compute and bandwidth where the campaign varies K and quantisation."""
        ks = {run.model_experts_per_token for group in self.inputs.values() for run in group}
        return roofline(self.shares, self.configurations, ks.pop() if len(ks) == 1 else None)

    @cached_property
    def board_savings(self) -> tuple[BoardSaving, ...]:
        """What configurations on fewer boards than their reference save, freed boards off and idle."""
        served = {
            name: group[0].provenance.windows["decode"].nodes
            for name, group in self.inputs.items()
            if "decode" in group[0].provenance.windows
        }
        return board_savings(self.configurations, board_uses(self.configurations, served, self.runs))

    @cached_property
    def iso_memory(self) -> tuple[IsoMemoryPair, ...]:
        """Pruned configurations beside unpruned ones of fewer bits and about the same bytes."""
        found = self.statistics
        if found.data is None or found.terms is None or found.draws is None:
            return ()
        sizes = {name: fit.file_bytes for name, fit in self.campaign.memory.items() if not fit.at_most}
        return iso_memory_pairs(found.data, found.terms, found.draws, sizes)

    @cached_property
    def utilisation(self) -> Utilisation | None:
        """The share of the cluster's time that was spent measuring, and the longest pause."""
        windows = (
            (run.run_id, [(span.start_utc_ns, span.end_utc_ns) for span in (*run.windows, run.steady_state) if span])
            for group in self.inputs.values()
            for run in group
        )
        return utilisation(windows, self.campaign.protocol.gap_before_window_s)


def load_results(campaign_dir: Path) -> CampaignResults:
    """Read all complete runs of a campaign.

    Raises:
        DataError: a file is missing or damaged.
    """
    campaign = read_json(CampaignFile, campaign_dir / "campaign.json")
    inputs: dict[str, list[RunInput]] = {}
    runs: dict[str, list[RunEvaluation]] = {}
    answers: dict[str, list[Answers]] = {}
    configurations = {item.id: item for item in campaign.configurations}
    for run in list_runs(campaign_dir):
        files, name = read_run(campaign_dir, run), run.configuration
        configurations.setdefault(name, files.run.configuration)
        inputs.setdefault(name, []).append(files.run)
        runs.setdefault(name, []).append(files.epi.evaluation)
        answers.setdefault(name, []).append(Answers(run.repetition, tuple(map(mark_of, files.questions))))
    judged = judge_repetitions(inputs, runs)
    return CampaignResults(
        folder=campaign_dir,
        campaign=campaign,
        configurations=in_matrix_order(configurations.values()),
        inputs={name: tuple(group) for name, group in inputs.items()},
        runs=judged,
        answers={name: tuple(group) for name, group in answers.items()},
    )
