"""The experts of one layer in memory, dequantised, to compute outputs that the engine never asked for.

NAEE's loss and merging need them. One layer at a time: its experts in float32 are all that is held.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf as gguf_library
import numpy as np
import numpy.typing as npt

from shared.checkpoints import gguf
from shared.checkpoints.architectures import architecture_named
from shared.checkpoints.finite import require_finite
from shared.checkpoints.gguf_experts import expert_layers, part_of, routing_of
from shared.kernel.errors import ConfigurationError
from shared.kernel.regular_files import open_regular

Array = npt.NDArray[Any]


def is_computed_here(architecture: str) -> bool:
    """Tell whether the experts of an architecture are of the kind that is computed here, as far as its graph tells."""
    row = architecture_named(architecture)
    return row is not None and row.activation == "silu" and (row.gating_in_file or row.gating == "softmax")


@dataclass(frozen=True)
class LayerExperts:
    """Router [E, d], gate and up [E, ff, d], down [E, d, ff], float32."""

    router: Array
    gate: Array
    up: Array
    down: Array
    normalises: bool = True
    """Whether the graph divides gates by their sum over the chosen experts."""

    @classmethod
    def load(cls, model_path: Path, row: int) -> "LayerExperts":
        """Read the experts of the `row`-th layer that has any, of a GGUF of any quantisation.

        Raises:
            ConfigurationError: there is no such layer, or its experts and router are not a softmax over SwiGLU.
            DataError: a weight is NaN or infinite; layer and expert are named.
        """
        file = gguf.load(model_path)
        layers = expert_layers(file)
        if not 0 <= row < len(layers):
            raise ConfigurationError(f"there is no MoE layer {row}", where=str(model_path))
        at = f"blk.{layers[row]}"
        routing = routing_of(file)
        parts = [part for tensor in file.tensors if (part := part_of(tensor.name)) and part.layer == layers[row]]
        bare = all(part.kind == "weight" for part in parts)
        if not bare or routing.gating != "softmax" or not is_computed_here(file.architecture):
            raise ConfigurationError(
                f"experts of this {file.architecture} cannot be computed outside of the engine: what is known is a"
                " softmax over SwiGLU experts without biases and scales", where=str(model_path),
                hint="use a ranking, or the search eep",
            )  # fmt: skip

        def read(name: str) -> Array:
            tensor = file.tensor(f"{at}.{name}.weight")
            if tensor is None:
                raise ConfigurationError(f"{at} has no {name}", where=str(model_path))
            with open_regular(tensor.file) as stream:
                stream.seek(tensor.offset)
                raw = np.frombuffer(stream.read(tensor.n_bytes), np.uint8)
            kind = gguf_library.GGMLQuantizationType(tensor.kind)
            values = np.asarray(gguf_library.dequantize(raw, kind), np.float32).reshape(tuple(reversed(tensor.ne)))
            for expert, own in enumerate(values):
                require_finite(own, f"{model_path}: {at}.{name}, expert {expert}")
            return values

        if file.tensor(f"{at}.ffn_gate_up_exps.weight") is not None:
            gate, up = np.split(read("ffn_gate_up_exps"), 2, axis=1)
        else:
            gate, up = read("ffn_gate_exps"), read("ffn_up_exps")
        return cls(read("ffn_gate_inp"), gate, up, read("ffn_down_exps"), routing.normalises)

    def probabilities(self, inputs: Array) -> Array:
        """Return the router's softmax [T, E] of block inputs [T, d], in float64."""
        logits = inputs.astype(np.float64) @ self.router.T.astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        weights = np.exp(logits)
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def outputs(self, inputs: Array) -> Array:
        """Return what every expert says to every token, [E, T, d], selected or not."""
        inputs = inputs.astype(np.float32)
        result = np.empty((len(self.gate), *inputs.shape), np.float32)
        for expert, (gate, up, down) in enumerate(zip(self.gate, self.up, self.down, strict=True)):
            hidden = inputs @ gate.T
            with np.errstate(over="ignore"):
                hidden /= 1.0 + np.exp(-hidden)
            hidden *= inputs @ up.T
            result[expert] = hidden @ down.T
        return result
