"""Expert statistics: additive sums and counts per calibration domain, and the one file that holds them.

Sums, never means, so that files of several runs or machines add up. They add up exactly, whatever the order: each
contribution is rounded to a power-of-two grid fine against the value (`GRIDS`), and float64 sums of grid points are
exact while they stay below 2^53 grid steps. Beyond that they are ordinary float64 sums and `exact` is False.

Not here: how they are collected (`surgeon.observation.observe`), what is made of them (`surgeon.rankings`).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as serialise

from shared.checkpoints import safetensors
from shared.files.atomic import write_file
from shared.kernel.defects import reason_of
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import Record, Sha256, is_absent
from surgeon.observation.soundness import check_reservoir, check_sums

Array = npt.NDArray[Any]
RATIO_BINS: Final = 1000
"""Bins of w2/w1 over [0, 1]: a median read from them is within 0.0005."""
METADATA_KEY: Final = "epi.statistics"

GRIDS: Final[Mapping[str, float]] = {
    "softmax_sum": 2.0**-26,  # <= 1 per token: exact to 1.3e8 tokens
    "gate_sum": 2.0**-26,
    "norm_sum": 2.0**-24,
    "gate_norm_sum": 2.0**-24,
    "easy_sum": 2.0**-24,
    "input_square_sum": 2.0**-20,
    "input_gate_square_sum": 2.0**-20,
    "inner_square_sum": 2.0**-20,
    "inner_gate_square_sum": 2.0**-20,
}
"""Summed statistics and their grids. Tensors [layer, expert] but for the `square` ones [layer, expert, column]."""
COUNTS: Final = ("selections", "ratio_histogram")
"""int64: [layer, expert] times an expert was among the top k; [layer, bin] of w2/w1."""
MAXIMA: Final = ("norm_max",)
"""float64 [layer, expert]: combined by maximum."""


class Provenance(Record):
    """What the statistics were taken on; two files with different provenance do not add up."""

    schema_version: int = 1
    model_sha256: Sha256
    engine: str
    corpus_sha256: Sha256
    n_layers: int
    n_experts: int
    experts_per_token: int
    window_tokens: int
    max_tokens: int | None = None
    columns: bool = False
    reservoir_capacity: int = 0
    exact: bool = True
    n_tokens: dict[str, int]
    """Tokens by domain."""
    windows: tuple[int, ...] = ()
    """Numbers of the corpus windows in here, ascending: a window is never counted twice."""
    n_windows: int = 0
    """Windows the whole corpus has."""
    router_sha256: Sha256 | None = None
    """Of the model (`shared.checkpoints.surgery.router_sha256`); None in files of older versions."""
    layers: tuple[int, ...] | None = Field(default=None, exclude_if=is_absent)
    """Numbers of the layers with experts; None: all, from 0."""
    expert_groups: int | None = Field(default=None, exclude_if=is_absent)
    """Groups that a token chooses experts from; None: no groups."""
    expert_groups_used: int | None = Field(default=None, exclude_if=is_absent)


SAME_RUN: Final = (
    "model_sha256", "engine", "corpus_sha256", "n_layers", "n_experts", "experts_per_token", "window_tokens",
    "max_tokens", "columns", "reservoir_capacity", "n_windows",
)  # fmt: skip
"""What must be equal for two files to add up, or for a run to go on."""


@dataclass
class Statistics:
    """All sums of one or more runs; `domains[name][statistic]` as listed in GRIDS, COUNTS and MAXIMA."""

    provenance: Provenance
    domains: dict[str, dict[str, Array]]
    reservoir: dict[str, Array] = field(default_factory=dict)
    """Optional sample of block inputs: `inputs` f32 [layer, slot, n_embd] and `priority` u64 [slot]."""

    @property
    def n_tokens(self) -> int:
        """Tokens over all domains."""
        return sum(self.provenance.n_tokens.values())

    def total(self, statistic: str, weights: Mapping[str, float] | None = None) -> Array:
        """Return a statistic over all domains; with `weights`, each domain counts per token times its weight.

        Raises:
            ConfigurationError: the statistic was not collected, a weight names no domain or is none, or all are 0.
        """
        missing = [name for name, values in self.domains.items() if statistic not in values]
        if missing or not self.domains:
            raise ConfigurationError(f"the statistic {statistic!r} was not collected", hint="observe again with it")
        reduce = np.maximum.reduce if statistic in MAXIMA else np.add.reduce
        if weights is None:
            return np.asarray(reduce([values[statistic] for values in self.domains.values()]))
        if unknown := set(weights) - set(self.domains):
            raise ConfigurationError(f"no such domain: {', '.join(sorted(unknown))}",
                                     hint=f"known: {', '.join(sorted(self.domains))}")  # fmt: skip
        for name, weight in weights.items():
            if not 0 <= weight < np.inf:
                raise ConfigurationError(f"the weight of the domain {name} is {weight:g}", hint="0 or more, and finite")
        used = {name: weight for name, weight in weights.items() if weight > 0}
        if not used:
            raise ConfigurationError("every domain has the weight 0", hint="give at least one domain a weight")
        tokens = self.provenance.n_tokens
        scale = {name: 1.0 if statistic in MAXIMA else weight / max(tokens[name], 1) for name, weight in used.items()}
        return np.asarray(reduce([scale[name] * self.domains[name][statistic] for name in used]))


def add_into(sums: dict[str, Array], statistic: str, contribution: Array) -> bool:
    """Add one window's contribution in place; return whether the sum is still exact."""
    if statistic in COUNTS:
        sums[statistic] += contribution
        return True
    if statistic in MAXIMA:
        np.maximum(sums[statistic], contribution, out=sums[statistic])
        return True
    grid = GRIDS[statistic]
    sums[statistic] += np.round(contribution / grid) * grid
    return bool(sums[statistic].max(initial=0.0) < 2.0**53 * grid)


def merge(parts: Iterable[Statistics]) -> Statistics:
    """Add statistics of disjoint windows of one corpus; the result equals one pass over all of them.

    Raises:
        ConfigurationError: nothing to merge, other models, engines or corpora, or a window that comes twice.
    """
    everything = list(parts)
    if not everything:
        raise ConfigurationError("nothing to merge")
    first = everything[0].provenance
    windows: set[int] = set()
    tokens: dict[str, int] = {}
    domains: dict[str, dict[str, Array]] = {}
    exact = True
    for part in everything:
        other = part.provenance
        for name in SAME_RUN:
            if getattr(other, name) != getattr(first, name):
                raise ConfigurationError(f"the statistics differ in {name}", hint="merge runs of one corpus and model")
        if twice := windows & set(other.windows):
            raise ConfigurationError(f"window {min(twice)} is in two files")
        windows |= set(other.windows)
        exact &= other.exact
        for domain, count in other.n_tokens.items():
            tokens[domain] = tokens.get(domain, 0) + count
        for domain, values in part.domains.items():
            if domain not in domains:
                domains[domain] = {name: value.copy() for name, value in values.items()}
                continue
            for name, value in values.items():
                exact &= add_into(domains[domain], name, value)
    provenance = first.model_copy(
        update={"n_tokens": dict(sorted(tokens.items())), "windows": tuple(sorted(windows)), "exact": exact}
    )
    reservoirs = [part.reservoir for part in everything if part.reservoir]
    reservoir = merge_reservoirs(reservoirs, first.reservoir_capacity)
    return Statistics(provenance, dict(sorted(domains.items())), reservoir)


def merge_reservoirs(parts: list[dict[str, Array]], capacity: int) -> dict[str, Array]:
    """Return the `capacity` samples with the lowest priorities of all parts: those a single pass would have drawn."""
    if not parts:
        return {}
    priority = np.concatenate([part["priority"] for part in parts])
    inputs = np.concatenate([part["inputs"] for part in parts], axis=1)
    chosen = np.argsort(priority, kind="stable")[:capacity]
    return {"priority": priority[chosen], "inputs": inputs[:, chosen]}


def save(statistics: Statistics, path: Path) -> None:
    """Write one self-describing safetensors file, whole or not at all; equal statistics have equal bytes.

    Raises:
        DataError: sums that are NaN, infinite or negative; layer and expert are named, nothing is written.
    """
    check_sums(statistics.domains, statistics.provenance.n_tokens, str(path))
    check_reservoir(statistics.reservoir, statistics.provenance.n_layers, str(path))
    tensors: dict[str, Array] = {}
    for domain, values in statistics.domains.items():
        tensors.update({f"domain/{domain}/{name}": value for name, value in values.items()})
    tensors.update({f"reservoir/{name}": value for name, value in statistics.reservoir.items()})
    text = json.dumps(statistics.provenance.model_dump(mode="json"), sort_keys=True)
    data = serialise({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}, {METADATA_KEY: text})
    write_file(path, data)


def load(path: Path) -> Statistics:
    """Read a statistics file.

    Raises:
        ConfigurationError: not there.
        DataError: not such a file, or damaged; of a value that cannot be, layer and expert are named.
    """
    header = safetensors.parse_file(path)
    try:
        provenance = Provenance.model_validate_json(header.metadata.get(METADATA_KEY, ""))
        tensors = load_file(path)
    except (ValidationError, SafetensorError) as error:
        raise DataError(f"not a file of expert statistics: {reason_of(error)}", where=str(path)) from error
    domains: dict[str, dict[str, Array]] = {}
    reservoir: dict[str, Array] = {}
    expected = (provenance.n_layers, provenance.n_experts)
    for key, value in tensors.items():
        if key.startswith("reservoir/"):
            reservoir[key.removeprefix("reservoir/")] = value
            continue
        domain, _, name = key.removeprefix("domain/").rpartition("/")
        if name not in (*GRIDS, *COUNTS, *MAXIMA) or value.shape[:2] != (
            (provenance.n_layers, RATIO_BINS) if name == "ratio_histogram" else expected
        ):
            raise DataError(f"unexpected tensor {key!r} {value.shape}", where=str(path))
        domains.setdefault(domain, {})[name] = value
    if not domains:
        raise DataError("no statistics in it", where=str(path))
    check_sums(domains, provenance.n_tokens, str(path))
    check_reservoir(reservoir, provenance.n_layers, str(path))
    return Statistics(provenance, domains, reservoir)
