"""What a model takes in memory on each node, calculated before it exists: the question to the surgeon and its answer.

Only numbers of experts matter for bytes, not which ones: so a variant can be asked for before its plan is made. Not
here: what the nodes have (`shared.wire.node_jobs.host`), and whether it fits (the orchestrator).
"""

from typing import Literal

from pydantic import Field

from shared.kernel.records import EngineName, Layout, Record
from shared.wire.names import Name

TensorClass = Literal[
    "embedding", "output", "attention", "experts", "shared_experts", "router", "feed_forward", "norms", "other"
]


class VariantShape(Record):
    """What of a variant bytes depend on."""

    kept: tuple[int, ...] | None = Field(default=None, description="experts each layer keeps; null: nothing is cut")
    layout: Layout = "uniform"


class ServingShape(Record):
    """What of a serving bytes depend on."""

    engine: EngineName = "llama.cpp"
    memory: tuple[int, ...] = Field(
        min_length=1, max_length=64, description="total bytes of each node, the root first: they share out the layers"
    )
    context_tokens: int = Field(default=8192, ge=64)
    sequences: int = Field(default=32, ge=2, le=256)
    experts_per_token: int | None = Field(default=None, ge=1, description="null: the model's own")


class FootprintParams(Record):
    """One variant of one model in one serving."""

    model: Name
    quantization: str = "Q4_K_M"
    variant: VariantShape = VariantShape()
    serving: ServingShape


class NodeFootprint(Record):
    """Bytes on one node. `buffers` is what the engine itself reports; `needed` is what must be free."""

    weights: dict[TensorClass, int] = Field(default_factory=dict, description="by class of tensor, as split")
    cache: int = Field(default=0, ge=0, description="keys and values")
    compute: int = Field(default=0, ge=0, description="compute buffers")
    output: int = Field(default=0, ge=0, description="logits, as reserved at load")
    output_growth: int = Field(default=0, ge=0, description="logits beyond that, in the largest batch that is scored")
    loading: int = Field(default=0, ge=0, description="beside the weights only while loading: the largest tensor")
    processes: int = Field(default=0, ge=0, description="engine and worker without all of this")

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all weights."""
        return sum(self.weights.values())

    @property
    def buffers(self) -> int:
        """Return what the engine reports when it has loaded the model."""
        return self.weight_bytes + self.cache + self.compute + self.output

    @property
    def needed(self) -> int:
        """Return the most that is held at once: while loading, or while it works."""
        working = self.cache + self.compute + self.output + self.output_growth
        return self.weight_bytes + max(working, self.loading) + self.processes


class Footprint(Record):
    """What one variant takes on each node, the root first."""

    nodes: tuple[NodeFootprint, ...]
    file_bytes: int = Field(description="of the model's file")
    rule: str = Field(description="how it was calculated")

    @property
    def needed(self) -> tuple[int, ...]:
        """Return what must be free on each node."""
        return tuple(node.needed for node in self.nodes)


class FootprintRequest(Record):
    """What `POST /v1/footprints` is asked."""

    items: tuple[FootprintParams, ...] = Field(max_length=2000)


class FootprintAnswer(Record):
    """The answer to one item: the bytes, or why there are none."""

    footprint: Footprint | None = None
    problem: str = ""


class FootprintReply(Record):
    """What `POST /v1/footprints` answers, in the order of the items."""

    answers: tuple[FootprintAnswer, ...]
