"""Results calculated anew from samples and answers, and how they differ from what was written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.run.alignment import Trace
from orchestrator.domain.run.evaluate import EvaluatedRun, evaluate_run
from orchestrator.domain.run.records import AnswerSource, RunInput
from orchestrator.results.blocks import differing_figures
from orchestrator.results.files import json_bytes, list_runs, read_json, read_traces, run_files
from orchestrator.results.schema import BenchmarkFile, EpiFile
from shared.files.atomic import write_file
from shared.kernel.errors import DataError
from shared.kernel.records import NodeName, QuestionResult, Record


@dataclass(frozen=True)
class MeasuredFiles:
    """What a run's result is calculated from: its run, benchmark and trace files."""

    run: RunInput
    questions: tuple[QuestionResult, ...]
    sample: tuple[QuestionResult, ...]
    traces: Mapping[NodeName, Trace]

    @classmethod
    def read(cls, campaign_dir: Path, run: RunReference) -> Self:
        """Read the three files.

        Raises:
            DataError: a file is missing or damaged.
        """
        paths = run_files(campaign_dir, run)
        benchmark = read_json(BenchmarkFile, paths["benchmark"])
        return cls(
            run=read_json(RunInput, paths["run"]),
            questions=benchmark.questions,
            sample=benchmark.sample,
            traces=read_traces(paths["power_trace"]),
        )

    def recompute(self) -> EpiFile:
        """Calculate what `epi_NNN.json` holds.

        Raises:
            DataError: the files do not fit one another.
        """
        return EpiFile.of(self.run, self.evaluate().evaluation)

    def answered(self, questions: tuple[QuestionResult, ...], source: AnswerSource) -> Self:
        """Return the same run with the answers that its accuracy is of, which came after it was measured."""
        return replace(self, run=self.run.model_copy(update={"answers": source}), questions=questions)

    def evaluate(self) -> EvaluatedRun:
        """Evaluate the run anew.

        Raises:
            DataError: the files do not fit one another.
        """
        return evaluate_run(self.run, self.traces, self.questions, self.sample)


@dataclass(frozen=True)
class Recomputed:
    """One run calculated anew; `written` is None where there was no `epi_NNN.json` or `damage` says why it is none."""

    run: RunReference
    again: EpiFile
    written: EpiFile | None
    damage: str = ""

    @property
    def differences(self) -> tuple[str, ...]:
        """Name the figures that differ by more than 1e-9 relative from what was written."""
        if self.written is None:
            return (f"what was written is no result: {self.damage}",) if self.damage else ()
        pairs = (
            ("energy", self.written.energy, self.again.energy),
            ("accuracy", self.written.accuracy, self.again.accuracy),
            ("epi", self.written.epi, self.again.epi),
        )
        return tuple(difference for block, one, two in pairs for difference in _differences(block, one, two))


def recompute_campaign(campaign_dir: Path) -> Iterator[Recomputed]:
    """Calculate every complete run anew, in order."""
    for run in list_runs(campaign_dir):
        path = run_files(campaign_dir, run)["epi"]
        written, damage = None, ""
        try:
            written = read_json(EpiFile, path) if path.exists() else None
        except DataError as error:
            damage = error.message
        yield Recomputed(run, MeasuredFiles.read(campaign_dir, run).recompute(), written, damage)


def write_recomputed(campaign_dir: Path, recomputed: Recomputed) -> None:
    """Replace a run's `epi_NNN.json` by what was calculated anew."""
    write_file(run_files(campaign_dir, recomputed.run)["epi"], json_bytes(recomputed.again))


def _differences(block: str, written: Record, again: Record) -> Iterator[str]:
    one, two = written.model_dump(), again.model_dump()
    for name in differing_figures(written, again):
        yield f"{block}.{name}: written {one[name]!r}, recomputed {two[name]!r}"
