"""Count which experts a model selects, of any architecture and layout: proof that a dropped expert is never used."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.checkpoints import gguf, gguf_experts
from shared.llama import model as llama


def count_selected(model_path: Path, texts: Sequence[str], *, threads: int = 1) -> npt.NDArray[np.int64]:
    """Return how often each expert was among the top k over all tokens of `texts`, [layer, expert]."""
    file = gguf.parse(model_path)
    layers = gguf_experts.expert_layers(file)
    counts = np.zeros((len(layers), file.integer("expert_count")), np.int64)
    rows = {f"ffn_moe_topk-{layer}".encode(): row for row, layer in enumerate(layers)}

    def count(tensor: llama.Tensor, ask: bool) -> bool:
        row = rows.get(tensor.raw_name)
        if row is None:
            return not ask
        if not ask:
            counts[row] += np.bincount(tensor.read().reshape(-1), minlength=counts.shape[1])
        return True

    with llama.Model(model_path) as model:
        longest = 512
        with llama.Context(
            model, context_tokens=longest, batch_tokens=longest, threads=threads, on_tensor=count
        ) as context:
            for text in texts:
                tokens = model.tokenize(text)
                for begin in range(0, len(tokens), longest):
                    part = tokens[begin : begin + longest]
                    context.clear()
                    context.decode(part, range(len(part)))
    return counts
