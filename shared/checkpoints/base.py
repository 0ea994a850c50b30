"""What the checkpoint formats have in common: the facts of a model, and an output described before it is written.

A format module parses its files and answers two questions: `describe` (what model is this?) and `recipe` (which bytes
make up the checkpoint after surgery?). A recipe is a list of output files, each a list of pieces: literal bytes, or a
range of a source file. Nothing is written here (`shared.checkpoints.surgery`), so everything that can be refused is
refused before the first byte is written, and memory does not depend on the size of the model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.checkpoints.architectures import architecture_named
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Layout, Record, SurgeryPlan


class CheckpointInfo(Record):
    """What a surgeon has to know of a checkpoint."""

    format: str
    architecture: str
    n_layers: int
    """Layers with experts; a plan has as many."""
    n_experts: int
    experts_per_token: int
    size_bytes: int
    quantization: str = ""
    expert_groups: int = 0
    """Groups that a token chooses experts from, each of the same number of neighbours; 0: no groups."""
    expert_groups_used: int = 0
    """Of which a token uses so many."""
    no_biased: str = "it exists in GGUF only"
    """Why it cannot be cut in the layout `biased`; "" where it can."""
    layouts_agree: bool = True
    """Whether one plan in both layouts is one surgery; where not, variants of both are never compared."""

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """In which it can be cut."""
        return ("uniform",) if self.no_biased else ("uniform", "biased")


@dataclass(frozen=True, slots=True)
class Inline:
    """Bytes made by the recipe: headers, metadata, small tensors."""

    data: bytes

    @property
    def length(self) -> int:
        """Number of bytes."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes [offset, offset + length) of a source file."""

    source: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Zeros:
    """A run of zero bytes."""

    length: int


@dataclass(frozen=True, slots=True)
class Computed:
    """Bytes that are calculated while the file is written: `chunks` yields `length` bytes in all."""

    length: int
    chunks: Callable[[], Iterator[bytes]]


Piece = Inline | Range | Zeros | Computed
_SMALL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file of the result; `name` is relative to the target, empty when the target itself is the file."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int:
        """Size of the finished file."""
        return sum(piece.length for piece in self.pieces)


def joined(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Return the same bytes in as few pieces as possible: neighbours are merged, empty ones dropped."""
    result: list[Piece] = []
    literal: list[bytes] = []

    def flush() -> None:
        if literal:
            result.append(Inline(b"".join(literal)))
            literal.clear()

    for piece in pieces:
        if not piece.length:
            continue
        if isinstance(piece, Inline):
            literal.append(piece.data)
            continue
        flush()
        if isinstance(piece, Zeros):
            if piece.length < _SMALL_BYTES:
                literal.append(bytes(piece.length))
            else:
                result.append(piece)
            continue
        last = result[-1] if result else None
        if isinstance(piece, Computed):
            result.append(piece)
        elif isinstance(last, Range) and last.source == piece.source and last.offset + last.length == piece.offset:
            result[-1] = Range(last.source, last.offset, last.length + piece.length)
        else:
            result.append(piece)
    flush()
    return tuple(result)


def check_plan(plan: SurgeryPlan, info: CheckpointInfo, where: Path) -> None:
    """Refuse a plan that does not fit the model.

    Raises:
        ConfigurationError: other numbers of layers or experts, fewer experts left than are active per token, groups of
            experts that could not be chosen from any more, or an expert count that the engine takes for another model.
    """
    if plan.n_layers != info.n_layers or plan.n_experts != info.n_experts:
        raise ConfigurationError(
            f"the plan is for {plan.n_layers} layers of {plan.n_experts} experts,"
            f" the model has {info.n_layers} of {info.n_experts}",
            where=str(where), hint="make the plan from statistics of this model",
        )  # fmt: skip
    active = plan.experts_per_token or info.experts_per_token
    fewest = min(len(ids) for ids in plan.kept)
    if fewest < active:
        raise ConfigurationError(
            f"a layer would keep {fewest} experts, but {active} are active per token",
            where=str(where), hint="drop fewer, or lower experts_per_token in the plan",
        )  # fmt: skip
    _check_groups(plan, info, active, where)
    row = architecture_named(info.architecture)
    fixed = {*row.fixed_counts} if row is not None and plan.layout == "uniform" and fewest != info.n_experts else set()
    if fixed & {fewest, info.n_experts}:
        raise ConfigurationError(
            f"llama.cpp computes {info.architecture} otherwise when it has {min(fixed)} experts: none can be removed"
            " from such a model, and no other can be cut to that number", where=str(where),
        )  # fmt: skip


def _check_groups(plan: SurgeryPlan, info: CheckpointInfo, active: int, where: Path) -> None:
    """Refuse what the engine would end at: a group is rated by its two best experts, and all groups are equally large.

    Raises:
        ConfigurationError: it would.
    """
    if not info.expert_groups:
        return
    size = info.n_experts // info.expert_groups
    for layer, kept in enumerate(plan.kept):
        left = [sum(1 for expert in kept if expert // size == group) for group in range(info.expert_groups)]
        problem = ""
        if plan.layout == "uniform" and len(set(left)) > 1:
            problem = "removed experts must come equally from each group"
        elif min(left) < 2:
            problem = "each group must keep at least 2"
        elif sum(sorted(left)[: info.expert_groups_used]) < active:
            problem = f"any {info.expert_groups_used} groups must hold the {active} experts active per token"
        if problem:
            raise ConfigurationError(
                f"layer {layer} would keep {'+'.join(map(str, left))} experts of its {info.expert_groups} groups"
                f" of {size}: {problem}", where=str(where), hint="choose the experts to drop group by group",
            )  # fmt: skip


def keeps_everything(plan: SurgeryPlan, info: CheckpointInfo) -> bool:
    """Tell whether a uniform plan changes nothing: then the result is a byte-identical copy."""
    return (
        plan.layout == "uniform"
        and plan.merge is None
        and all(len(ids) == plan.n_experts for ids in plan.kept)
        and plan.experts_per_token in (None, info.experts_per_token)
    )
