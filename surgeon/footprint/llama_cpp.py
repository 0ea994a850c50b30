"""Bytes on each node with llama.cpp over RPC: weights by where tensors go, the rest by llama.cpp's own account."""

from collections import Counter
from dataclasses import replace
from typing import Final

from shared.checkpoints import gguf
from shared.llama.dry_run import Allocation, DryRun
from shared.llama.layer_split import layers_by_memory, root_last
from shared.llama.sizes import most_outputs
from shared.wire.footprint import Footprint, NodeFootprint, ServingShape
from surgeon.footprint.headers import HollowModel
from surgeon.footprint.tensors import HOST, placed

ENGINE_PROCESS_BYTES: Final = 128 << 20
"""Python, libraries and vocabulary of the engine's process (measured: docs/formats.md)."""
WORKER_PROCESS_BYTES: Final = 64 << 20
"""Python and libraries of an RPC worker (measured: docs/formats.md)."""
_F32_BYTES: Final = 4
_LARGER_ALONE: Final = frozenset({"minimax-01", "kimi-linear"})
"""Whose graph of one sequence takes more than that of many: llama.cpp reserves it too, but a dry run leaves it out."""


def footprint(model: HollowModel, serving: ServingShape, engine: DryRun) -> Footprint:
    """Return the bytes on each node, the root first: its engine process and its worker together.

    Raises:
        EpiError: llama.cpp refuses the model.
    """
    file = gguf.parse(model.path)
    order = root_last(len(serving.memory))
    layers = layers_by_memory(file.integer("block_count"), [serving.memory[node] for node in order])
    allocation = engine.allocate(
        model.path, layers, context_tokens=serving.context_tokens, sequences=serving.sequences,
        experts_per_token=serving.experts_per_token,
    )  # fmt: skip
    if file.architecture in _LARGER_ALONE:
        alone = engine.allocate(
            model.path, layers, context_tokens=serving.context_tokens, sequences=1,
            experts_per_token=serving.experts_per_token,
        )  # fmt: skip
        allocation = replace(
            allocation, compute=tuple(map(max, allocation.compute, alone.compute)),
            host_compute=max(allocation.host_compute, alone.host_compute),
        )  # fmt: skip
    weights: dict[int, Counter[str]] = {device: Counter() for device in (HOST, *range(len(order)))}
    largest: dict[int, int] = dict.fromkeys(weights, 0)
    for device, name, n_bytes in placed(file, allocation.device_of_layer):
        weights[device][name] += n_bytes
        largest[device] = max(largest[device], n_bytes)
    sent = max(largest[device] for device in range(len(order)))
    embedding = file.tensor("token_embd.weight")
    rows = most_outputs(embedding.outermost, serving.sequences) if embedding is not None else 0
    logits = rows * _F32_BYTES * (embedding.outermost if embedding is not None else 0)
    nodes: list[NodeFootprint] = []
    for node in range(len(order)):
        device = order.index(node)
        worker = _worker(weights[device], allocation, device, largest[device])
        nodes.append(worker if node else _with_engine(worker, weights[HOST], allocation, sent, logits))
    return Footprint(nodes=tuple(nodes), file_bytes=model.file_bytes, rule="llama.cpp over RPC: tensors by layer, "
                     "buffers by llama.cpp's own account")  # fmt: skip


def _worker(weights: Counter[str], allocation: Allocation, device: int, largest: int) -> NodeFootprint:
    return NodeFootprint.model_validate({
        "weights": dict(weights), "cache": allocation.cache_on(device), "compute": allocation.compute[device],
        "loading": largest, "processes": WORKER_PROCESS_BYTES,
    })  # fmt: skip


def _with_engine(
    worker: NodeFootprint, embedding: Counter[str], allocation: Allocation, sent: int, logits: int
) -> NodeFootprint:
    return NodeFootprint.model_validate({
        "weights": dict(Counter(worker.weights) + embedding), "cache": worker.cache,
        "compute": worker.compute + allocation.host_compute, "output": allocation.output,
        "output_growth": max(logits - allocation.output, 0),
        # The engine copies a tensor before it sends it, and the worker receives it whole before it stores it.
        "loading": worker.loading + sent, "processes": worker.processes + ENGINE_PROCESS_BYTES,
    })  # fmt: skip
