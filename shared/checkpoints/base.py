"""What the checkpoint formats have in common: the facts of a model, and an output described before it is written.

A format module parses its files and answers two questions: `describe` (what model is this?) and `recipe` (which bytes
make up the checkpoint after surgery?). A recipe is a list of output files, each a list of pieces: literal bytes, or a
range of a source file. Nothing is written here (`shared.checkpoints.surgery`), so everything that can be refused is
refused before the first byte is written, and memory does not depend on the size of the model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Record, SurgeryPlan


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
        ConfigurationError: other numbers of layers or experts, or fewer experts left than are active per token.
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


def keeps_everything(plan: SurgeryPlan, info: CheckpointInfo) -> bool:
    """Tell whether a uniform plan changes nothing: then the result is a byte-identical copy."""
    return (
        plan.layout == "uniform"
        and plan.merge is None
        and all(len(ids) == plan.n_experts for ids in plan.kept)
        and plan.experts_per_token in (None, info.experts_per_token)
    )
