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
from shared.checkpoints.finite import require_finite
from shared.checkpoints.gguf_experts import expert_layers
from shared.kernel.errors import ConfigurationError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LayerExperts:
    """Router [E, d], gate and up [E, ff, d], down [E, d, ff], float32."""

    router: Array
    gate: Array
    up: Array
    down: Array

    @classmethod
    def load(cls, model_path: Path, row: int) -> "LayerExperts":
        """Read the experts of the `row`-th layer that has any, of a GGUF of any quantisation.

        Raises:
            ConfigurationError: there is no such layer, or its tensors are not those of a SwiGLU expert.
            DataError: a weight is NaN or infinite; layer and expert are named.
        """
        file = gguf.load(model_path)
        layers = expert_layers(file)
        if not 0 <= row < len(layers):
            raise ConfigurationError(f"there is no MoE layer {row}", where=str(model_path))
        at = f"blk.{layers[row]}"

        def read(name: str) -> Array:
            tensor = file.tensor(f"{at}.{name}.weight")
            if tensor is None:
                raise ConfigurationError(f"{at} has no {name}", where=str(model_path))
            with tensor.file.open("rb") as stream:
                stream.seek(tensor.offset)
                raw = np.frombuffer(stream.read(tensor.n_bytes), np.uint8)
            kind = gguf_library.GGMLQuantizationType(tensor.kind)
            values = np.asarray(gguf_library.dequantize(raw, kind), np.float32).reshape(tuple(reversed(tensor.ne)))
            for expert, own in enumerate(values):
                require_finite(own, f"{model_path}: {at}.{name}, expert {expert}")
            return values

        return cls(read("ffn_gate_inp"), read("ffn_gate_exps"), read("ffn_up_exps"), read("ffn_down_exps"))

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
