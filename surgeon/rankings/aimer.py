"""AIMER: from the weights alone, (||w||_1 / N) / sqrt(||w||_2^2 / N) over gate, up and down together.

The largest are dropped first: where all weights are about equally large, the expert is taken to hold less structure.
So the saliency is the negative of the ratio.
"""

from typing import ClassVar

import gguf as gguf_library
import numpy as np

from shared.checkpoints import gguf
from shared.checkpoints.finite import require_finite
from shared.checkpoints.gguf_experts import expert_layers, part_of
from shared.kernel.errors import ConfigurationError
from shared.kernel.regular_files import open_regular
from surgeon.rankings.base import Array, Ranking, RankingInputs


class Aimer(Ranking):
    """See the module."""

    name: ClassVar = "aimer"
    source: ClassVar = "AIMER, absolute mean over root mean square of the expert's weights"
    weight_formats: ClassVar = ("gguf",)

    def saliency(self, inputs: RankingInputs) -> Array:
        """Return the negative ratio [layer, expert]; one expert's tensor is in memory at a time.

        Raises:
            ConfigurationError: no model file was given.
            DataError: a weight is NaN or infinite; layer and expert are named.
        """
        if inputs.model_path is None:
            raise ConfigurationError("aimer reads the weights: it needs the model file", hint="give --model")
        file = gguf.load(inputs.model_path)
        absolute = np.zeros((inputs.n_layers, inputs.n_experts))
        squares = np.zeros_like(absolute)
        count = np.zeros((inputs.n_layers, 1))
        layers = expert_layers(file)
        for tensor in file.tensors:
            part = part_of(tensor.name)
            if part is None or part.what != "expert" or part.kind != "weight" or part.layer not in layers:
                continue
            row = layers.index(part.layer)
            each = tensor.n_bytes // tensor.outermost
            count[row] += np.prod(tensor.ne[:-1])
            with open_regular(tensor.file) as stream:
                for expert in range(tensor.outermost):
                    stream.seek(tensor.offset + expert * each)
                    raw = np.frombuffer(stream.read(each), np.uint8)
                    kind = gguf_library.GGMLQuantizationType(tensor.kind)
                    values = gguf_library.dequantize(raw, kind).astype(np.float64)
                    require_finite(values, f"{inputs.model_path}: {tensor.name}, expert {expert}")
                    absolute[row, expert] += np.abs(values).sum()
                    squares[row, expert] += np.square(values).sum()
        return -(absolute / count) / np.sqrt(np.maximum(squares / count, 1e-300))


RANKING = Aimer
