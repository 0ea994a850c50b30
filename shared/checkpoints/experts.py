"""Where the experts of a tensor lie, and which pieces are left of them after a plan."""

from collections.abc import Sequence
from pathlib import Path

from shared.checkpoints.base import Piece, Range


def expert_ranges(source: Path, offset: int, n_bytes: int, n_experts: int) -> list[Range]:
    """Return the range of every expert of a tensor in which they lie one behind the other."""
    each = n_bytes // n_experts
    return [Range(source, offset + expert * each, each) for expert in range(n_experts)]


def kept_pieces(
    experts: Sequence[Range], kept: Sequence[int], kind: str, matrix: Sequence[Sequence[float]] | None
) -> list[Piece]:
    """Return what is left of a tensor: the kept experts' ranges, or with a `matrix` [new][old] sums of all of them.

    Raises:
        ConfigurationError: values of the ggml type `kind` cannot be merged.
    """
    if matrix is None:
        return [experts[expert] for expert in kept]
    from shared.checkpoints.merging import merged  # numpy, only where it is needed

    return [merged(experts, kind, matrix)]
