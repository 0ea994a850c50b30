"""Whether a configuration fits into its nodes' memory, and on how few nodes: calculated bytes against what nodes have.

The bytes are the surgeon's (`shared.wire.footprint`), the memory is what the nodes' agents say. Not here: asking either
(`orchestrator.campaign.memory`).
"""

from collections.abc import Mapping, Sequence

from pydantic import Field

from orchestrator.domain.campaign.cells import ModelShape, experts_to_drop
from orchestrator.domain.campaign.spec import CampaignSpec, given_file
from orchestrator.domain.campaign.surgeries import (
    AppliedSurgery,
    GivenFile,
    GivenPlan,
    PruneExperts,
    SearchExperts,
    goes_on,
)
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Configuration, ConfigurationId, Layout, NodeName, Record
from shared.wire.footprint import Footprint, FootprintParams, NodeFootprint, ServingShape, VariantShape

_GIB = 1 << 30


class NodeMemory(Record):
    """What a node has."""

    name: NodeName
    total_bytes: int = Field(ge=0, description="physical: the layers are shared out by it")
    usable_bytes: int = Field(ge=0, description="what engines may take")


class NodeFit(Record):
    """One configuration on one node."""

    node: NodeName
    needed: int = Field(description="bytes that must be free, at the most")
    usable: int
    bytes: NodeFootprint = Field(description="by what takes them")

    @property
    def missing(self) -> int:
        """Return how many bytes too few the node has; 0 where it fits."""
        return max(self.needed - self.usable, 0)


class ConfigurationFit(Record):
    """One configuration on its nodes, with the engine that needs most where a run uses two."""

    configuration: ConfigurationId
    nodes: tuple[NodeFit, ...] = Field(default=(), description="the root first; empty: not known")
    file_bytes: int = 0
    at_most: bool = Field(default=False, description="the plan is not known yet: counted as if nothing were cut")
    problem: str = Field(default="", description="why it is not known")

    @property
    def fits(self) -> bool:
        """Tell whether every node has enough; True where it is not known."""
        return not any(node.missing for node in self.nodes)

    @property
    def needed(self) -> int:
        """Return the bytes on all nodes together."""
        return sum(node.needed for node in self.nodes)

    def reason(self) -> str:
        """Return why it does not fit, the worst node first."""
        worst = max(self.nodes, key=lambda node: node.missing)
        return (
            f"needs {_gib(worst.needed, worst.usable)} on {worst.node}, which can give"
            f" {_gib(worst.usable, worst.needed)} ({worst.missing} bytes too few)"
        )


def fit_of(
    configuration: ConfigurationId, nodes: Sequence[NodeMemory], footprints: Sequence[Footprint], *, at_most: bool
) -> ConfigurationFit:
    """Return how one configuration fits on `nodes`, the root first; of several engines the one that needs most counts.

    Raises:
        ValueError: a footprint is of another number of nodes.
    """
    if any(len(one.nodes) != len(nodes) for one in footprints):
        raise ValueError(f"{configuration}: a footprint of another number of nodes")
    largest = [max((one.nodes[at] for one in footprints), key=lambda node: node.needed) for at in range(len(nodes))]
    return ConfigurationFit(
        configuration=configuration, file_bytes=footprints[0].file_bytes, at_most=at_most,
        nodes=tuple(
            NodeFit(node=node.name, needed=taken.needed, usable=node.usable_bytes, bytes=taken)
            for node, taken in zip(nodes, largest, strict=True)
        ),
    )  # fmt: skip


def fewest(fits: Mapping[int, ConfigurationFit]) -> int | None:
    """Return the smallest number of nodes on which it is known to fit; None where it is on none."""
    return min((n for n, fit in fits.items() if fit.nodes and fit.fits), default=None)


def question(
    configuration: Configuration, spec: CampaignSpec, engine: str, memory: Sequence[int]
) -> tuple[FootprintParams, bool]:
    """Return what the surgeon is asked for a configuration, and whether its answer is only an upper bound.

    Raises:
        ConfigurationError: a percentage of a model whose shape is not known, or a surgery whose bytes only its result
            tells.
    """
    variant, at_most = variant_shape(configuration, spec)
    serving = ServingShape(
        engine=engine, memory=tuple(memory), context_tokens=spec.engine.context_tokens,
        sequences=spec.engine.sequences, experts_per_token=configuration.experts_per_token,
    )  # fmt: skip
    asked = FootprintParams(
        model=given_file(spec, configuration) or spec.model, quantization=configuration.quantization, variant=variant,
        serving=serving,
    )  # fmt: skip
    return asked, at_most


def variant_shape(configuration: Configuration, spec: CampaignSpec) -> tuple[VariantShape, bool]:
    """Return what of a variant bytes depend on, and whether that is only an upper bound.

    In the layout `biased` nothing leaves the file, and over RPC all of it goes to the nodes. A plan that is given by
    its hash is read later: until then it counts as cutting nothing.

    Raises:
        ConfigurationError: as `question`.
    """
    if configuration.variant is None:
        return _shaped(_cut(None, configuration.depth, spec.model_shape), configuration.layout), False
    at_most = False
    kept: tuple[int, ...] | None = None
    surgeries = (spec.variants or {})[configuration.variant].surgeries
    where = f"variants.{configuration.variant}"
    for surgery in surgeries:
        if goes_on(surgery) or isinstance(surgery, GivenFile):
            continue
        if isinstance(surgery, AppliedSurgery) or (configuration.layout == "biased" and len(surgeries) > 1):
            raise ConfigurationError(f"what {surgery.kind} leaves of the bytes, only its result tells", where=where)
        if isinstance(surgery, GivenPlan):
            at_most = at_most or surgery.plan is None
            kept = kept if surgery.plan is None else tuple(map(len, surgery.plan.kept))
        elif isinstance(surgery, PruneExperts) and surgery.keep is not None:
            kept = surgery.keep
        elif isinstance(surgery, PruneExperts | SearchExperts) and surgery.drop is not None:
            kept = _cut(kept, experts_to_drop(surgery.drop, spec.model_shape, f"{where}.drop"), spec.model_shape)
    return _shaped(kept, configuration.layout), at_most


def _shaped(kept: tuple[int, ...] | None, layout: Layout) -> VariantShape:
    return VariantShape(layout="biased") if layout == "biased" else VariantShape(kept=kept)


def _cut(kept: tuple[int, ...] | None, depth: int, shape: ModelShape | None) -> tuple[int, ...] | None:
    if shape is None or not depth:
        return kept
    return tuple(number - depth for number in kept or (shape.n_experts,) * shape.n_layers)


def _gib(size: int, other: int) -> str:
    """Return a size in GiB, with as many digits as tell it from another."""
    digits = 2
    while digits < 9 and size != other and f"{size / _GIB:.{digits}f}" == f"{other / _GIB:.{digits}f}":
        digits += 1
    return f"{size / _GIB:.{digits}f} GiB"
