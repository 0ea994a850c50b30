"""Bytes on each node with distributed-llama, by its own rule: everything that it adds up as `RequiredMemory`.

Source: `buildLlmNet` and `printNodeRequiredMemory` of distributed-llama at commit 8d624a7, Qwen3-MoE with Q40 weights
and Q80 buffers: each matrix is cut evenly over the nodes, keys and values are F32, the embedding stays at the root.
"""

from typing import Final

from shared.checkpoints import gguf
from shared.checkpoints.gguf import GgufFile
from shared.kernel.errors import ConfigurationError
from shared.wire.footprint import Footprint, NodeFootprint, ServingShape, TensorClass
from surgeon.footprint.headers import HollowModel

PROCESS_BYTES: Final = 48 << 20
"""The program itself, its network buffers, and the tokenizer."""
_BATCH: Final = 32
_ARCHITECTURE: Final = "qwen3moe"


def footprint(model: HollowModel, serving: ServingShape) -> Footprint:
    """Return the bytes on each node, the root first.

    Raises:
        ConfigurationError: a model that distributed-llama does not run, or that cannot be cut evenly.
    """
    file = gguf.parse(model.path)
    if file.architecture != _ARCHITECTURE:
        raise ConfigurationError(f"distributed-llama runs Qwen3-MoE, not {file.architecture}")
    shape = _Shape(file, len(serving.memory), serving)
    worker = shape.node()
    root = worker.model_copy(update={"weights": {**worker.weights, "embedding": 4 * shape.vocabulary * shape.hidden}})
    return Footprint(
        nodes=(root, *(worker,) * (len(serving.memory) - 1)), file_bytes=shape.file_bytes,
        rule="distributed-llama's RequiredMemory",
    )  # fmt: skip


class _Shape:
    """The sizes of one model on so many nodes, named as the engine names them."""

    def __init__(self, file: GgufFile, n_nodes: int, serving: ServingShape) -> None:
        self.n_nodes = n_nodes
        self.layers = file.integer("block_count")
        self.hidden = file.integer("embedding_length")
        self.head = file.integer("attention.key_length")
        self.heads = file.integer("attention.head_count")
        self.kv_heads = file.integer("attention.head_count_kv")
        self.width = file.integer("expert_feed_forward_length")
        self.experts = file.integer("expert_count")
        self.active = serving.experts_per_token or file.integer("expert_used_count")
        self.positions = min(serving.context_tokens, file.integer("context_length"))
        embedding = file.tensor("token_embd.weight")
        self.vocabulary = embedding.outermost if embedding is not None else 0
        uneven = [n for n in (self.kv_heads, self.heads, self.width, self.hidden, self.vocabulary) if n % n_nodes]
        if uneven:
            raise ConfigurationError(f"distributed-llama cannot cut {uneven[0]} evenly over {n_nodes} nodes")

    def node(self) -> NodeFootprint:
        """Return the bytes on a node that is not the root."""
        weights: dict[TensorClass, int] = {
            "attention": self.layers * _q40(2 * self.hidden * (self.heads + self.kv_heads) * self.head) // self.n_nodes,
            "experts": self.layers * self.experts * _q40(3 * self.hidden * self.width) // self.n_nodes,
            "router": self.layers * 4 * self.hidden * self.experts,
            "norms": 4 * (self.layers * (2 * self.hidden + 2 * self.head) + self.hidden),
            "output": _q40(self.hidden * self.vocabulary) // self.n_nodes,
        }
        cache = self.layers * 2 * 4 * self.positions * self.kv_heads * self.head // self.n_nodes
        return NodeFootprint(
            weights=weights, cache=cache, compute=self._buffers(), output=4 * _BATCH * self.vocabulary,
            processes=PROCESS_BYTES,
        )  # fmt: skip

    def _buffers(self) -> int:
        """Return pipes (without the logits) and buffers of a batch."""
        n, q_width, width = self.n_nodes, self.heads * self.head, self.width // self.n_nodes
        kv_width = self.kv_heads * self.head // n
        numbers = 2 + self.hidden  # position, token, x
        numbers += 2 * self.hidden + q_width + q_width // n + 2 * kv_width + max(q_width // n, kv_width) // self.head
        numbers += self.heads // n * self.positions + self.vocabulary // n
        numbers += 2 * width + self.experts + self.active * (2 + self.hidden + 2 * width)
        quantised = self.hidden * n + self.hidden + q_width // n + width + self.active * (self.hidden + width)
        return _BATCH * 4 * numbers + _BATCH * _q80(quantised) + 4 * self.positions * self.head

    @property
    def file_bytes(self) -> int:
        """Return the size of the .m file but for its header."""
        whole = sum(self.node().weights[name] for name in ("attention", "experts", "output")) * self.n_nodes
        rest = sum(self.node().weights[name] for name in ("router", "norms"))
        return whole + rest + 4 * self.vocabulary * self.hidden


def _q40(numbers: int) -> int:
    return numbers // 32 * 18


def _q80(numbers: int) -> int:
    return numbers // 32 * 34
