"""What a search is, what it is given and what it returns.

A search makes a plan by trying: each candidate costs a measurement, so it takes long, tells its progress and may go on
where it was killed. Not here: any search, and which ones there are (`registry`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from shared.checkpoints import surgery
from shared.checkpoints.base import CheckpointInfo
from shared.files.durability import hash_file
from shared.kernel.errors import ConfigurationError
from shared.kernel.progress import Progress
from shared.kernel.records import Record, SurgeryPlan
from shared.wire.surgeon_catalogue import Need
from surgeon.kinds.plan import plan_of
from surgeon.kinds.prune_experts import PruneExperts

if TYPE_CHECKING:
    from surgeon.observation.statistics import Statistics

_HINTS: Final[dict[str, str]] = {
    "statistics": "observe the model first",
    "reservoir": "observe with a reservoir of some hundred",
    "questions": "give at least one file of questions",
    "plan": "give the plan that the search goes on from",
    "start": "",
}


class SearchInputs(Record):
    """Everything a search may look at, as files."""

    model: Path
    depth: int | None = None
    """Experts to drop in each layer; None where the search goes on from a plan."""
    plan: SurgeryPlan | None = None
    start: tuple[SurgeryPlan, ...] = ()
    """Plans to begin with beside those that the search finds itself."""
    statistics: Path | None = None
    questions: tuple[tuple[Path, str], ...] = ()
    """Files and their templates, "" for the usual one."""
    cache: Path | None = None
    """Where what was tried is kept, so that a killed search goes on."""
    threads: int = 1

    @property
    def given(self) -> frozenset[str]:
        """Return which inputs there are, as needs call them."""
        there = {"statistics": self.statistics, "reservoir": self.statistics, "questions": self.questions,
                 "plan": self.plan, "start": self.start}  # fmt: skip
        return frozenset(name for name, value in there.items() if value)

    @property
    def drop(self) -> int:
        """Return the depth of a search that has one (`Search.needs` without a plan)."""
        assert self.depth is not None
        return self.depth

    @property
    def begun_with(self) -> SurgeryPlan:
        """Return the plan of a search that goes on from one."""
        assert self.plan is not None
        return self.plan

    def observed(self) -> "Statistics":
        """Return the statistics.

        Raises:
            ConfigurationError: there are none, or they are of another model.
        """
        from surgeon.observation import statistics as files

        if self.statistics is None:
            raise ConfigurationError("the search needs statistics", hint=_HINTS["statistics"])
        found = files.load(self.statistics)
        if found.provenance.model_sha256 != hash_file(self.model):
            raise ConfigurationError("the statistics are of another model", where=str(self.statistics))
        return found

    def reservoir(self) -> "Statistics":
        """Return the statistics with the block inputs that were kept.

        Raises:
            ConfigurationError: there are none, they are of another model, or hold no inputs.
        """
        found = self.observed()
        if "inputs" not in found.reservoir:
            raise ConfigurationError("no block inputs in the statistics", hint=_HINTS["reservoir"])
        return found

    def plan_keeping(
        self,
        kept: Sequence[Sequence[int]],
        n_experts: int,
        method: str,
        parameters: Mapping[str, str | int | float | bool],
    ) -> SurgeryPlan:
        """Return the plan that keeps these experts, with what it was made from."""
        prune = PruneExperts(
            n_experts=n_experts, kept=tuple(tuple(row) for row in kept), method=method, parameters=dict(parameters),
            base_sha256=hash_file(self.model),
            statistics_sha256=None if self.statistics is None else hash_file(self.statistics),
            router_sha256=surgery.router_sha256(self.model),
        )  # fmt: skip
        return plan_of((prune,), len(kept), n_experts)


@dataclass(frozen=True)
class SearchSize:
    """What is about to be done, said before it starts."""

    words: str
    is_long: bool = False
    """A person is asked first."""


@dataclass(frozen=True)
class Found:
    """The plan, and what is known of its worth: JSON values by name, for example accuracies and losses."""

    plan: SurgeryPlan
    report: dict[str, Any]


class Search(Record, ABC):
    """One search; its fields are its parameters.

    Attributes:
        name: as specs and jobs have it; also the name of the module or entry point that brings it.
        source: paper or definition.
        needs: what it must be given; one that needs a `plan` goes on from it and has no depth.
        optional: what it may be given besides.
        formats: model formats that it works on.
        free: parameters that do not change what a candidate is worth: what was tried under others counts again.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[tuple[Need, ...]]
    optional: ClassVar[tuple[Need, ...]] = ()
    formats: ClassVar[tuple[str, ...]] = ("gguf",)
    free: ClassVar[tuple[str, ...]] = ()

    def check(self, model: CheckpointInfo, depth: int | None) -> SearchSize:
        """Return how large the search is, before anything is read or tried.

        Raises:
            ConfigurationError: this cannot be found for such a model; says what and why.
        """
        self.check_depth(model, depth)
        return SearchSize(f"{self.name} over {model.n_layers} layers of {model.n_experts} experts")

    @abstractmethod
    def run(self, inputs: SearchInputs, on_progress: Progress) -> Found:
        """Search; what it needs is there, and its depth leaves enough experts.

        Raises:
            ConfigurationError: an input does not fit the model.
            DataError: an input is damaged.
        """

    def check_depth(self, model: CheckpointInfo, depth: int | None) -> None:
        """Refuse a format that it does not read, experts in groups, and to leave fewer experts than a token uses."""
        if model.format not in self.formats:
            raise ConfigurationError(f"{self.name} does not read {model.format} files", hint="convert the model first")
        if model.expert_groups:
            raise ConfigurationError(
                f"the experts of this {model.architecture} are chosen in {model.expert_groups} groups, which searches"
                " do not know", where=self.name, hint="use a ranking or a plan",
            )  # fmt: skip
        left = model.n_experts - (depth or 0)
        if left < model.experts_per_token:
            raise ConfigurationError(
                f"dropping {depth} of {model.n_experts} experts leaves {max(left, 0)}, but {model.experts_per_token}"
                " are active per token", where=self.name, hint="drop fewer",
            )  # fmt: skip

    @classmethod
    def check_inputs(cls, given: frozenset[str], *, has_depth: bool) -> None:
        """Refuse what is missing, and what would not be looked at.

        Raises:
            ConfigurationError: names it.
        """
        if missing := [need for need in cls.needs if need in _HINTS and need not in given]:
            raise ConfigurationError(f"the search needs {missing[0]}", where=cls.name, hint=_HINTS[missing[0]])
        if has_depth == ("plan" in cls.needs):
            raise ConfigurationError(
                "the search has its plan's depth" if has_depth else "the search needs a depth",
                where=cls.name, hint="leave the depth out" if has_depth else "say how many experts each layer drops",
            )  # fmt: skip
        taken = {*cls.needs, *cls.optional}
        taken |= {"statistics", "reservoir"} if taken & {"statistics", "reservoir"} else set()
        if extra := sorted(given - taken):
            raise ConfigurationError(f"the search takes no {extra[0]}", where=cls.name, hint="leave it out")
