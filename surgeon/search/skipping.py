"""NAEE's dynamic skipping: leave out the less weighted experts of a token when the first one weighs much more.

Lu et al., arXiv 2402.14800: of two active experts, the second is skipped if w2 < beta w1, with beta the layer's median
of w2/w1 on calibration data. With more than two active experts, every expert whose gate is below beta times the largest
is skipped: a generalisation, not the published rule. Gates of the others are renormalised where the model does so.

Stock engines compute skipped experts all the same: this evaluates what skipping would cost in accuracy and how many
expert computations it would save; it saves no energy there.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.checkpoints.surgery import describe
from shared.llama import model as llama
from shared.wire.surgeon_jobs import SkippingResult, SkippingScore
from surgeon.observation.statistics import RATIO_BINS, Statistics
from surgeon.search.multiple_choice import QUESTION_TEMPLATE, MultipleChoiceScorer, load_questions


def median_ratios(statistics: Statistics) -> npt.NDArray[np.float64]:
    """Return beta per layer: the median of w2/w1, to within half a bin (0.0005)."""
    histogram = statistics.total("ratio_histogram")
    cumulated = np.cumsum(histogram, axis=1)
    middle = np.array([np.searchsorted(row, row[-1] / 2) for row in cumulated])
    return np.asarray((middle + 0.5) / RATIO_BINS)


class DynamicSkipping:
    """An eval callback that skips, and counts what it skipped."""

    def __init__(self, betas: Sequence[float], experts_per_token: int, *, renormalises: bool = True) -> None:
        """Skip below `betas` by layer; `renormalises`: the model's gates add up to 1 (Qwen3-MoE, Mixtral)."""
        self._k = experts_per_token
        name = "ffn_moe_weights_norm" if renormalises else "ffn_moe_weights"
        self._renormalises = renormalises
        self._betas = {f"{name}-{layer}".encode(): beta for layer, beta in enumerate(betas)}
        self.n_selected = 0
        self.n_skipped = 0

    @property
    def share_skipped(self) -> float:
        """Skipped expert computations over all."""
        return self.n_skipped / max(self.n_selected, 1)

    def __call__(self, tensor: llama.Tensor, ask: bool) -> bool:
        """Be the eval callback of a `shared.llama.model.Context`."""
        beta = self._betas.get(tensor.raw_name)
        if beta is None:
            return not ask
        if ask:
            return True
        gates = np.array(tensor.read()).reshape(-1, self._k)
        skipped = gates < beta * gates.max(axis=-1, keepdims=True)
        gates[skipped] = 0.0
        if self._renormalises:
            gates /= gates.sum(axis=-1, keepdims=True)
        tensor.write(gates)
        self.n_selected += gates.size
        self.n_skipped += int(skipped.sum())
        return True


def evaluate_skipping(
    model_path: Path, statistics: Statistics, questions: Sequence[tuple[Path, str]], *, threads: int = 1
) -> SkippingResult:
    """Score each file of questions (path and template) without and with skipping.

    Raises:
        ConfigurationError: unreadable questions.
    """
    betas = median_ratios(statistics).tolist()
    info = describe(model_path)
    scores = []
    with llama.Model(model_path) as model:
        for path, template in questions:
            skipper = DynamicSkipping(betas, info.experts_per_token, renormalises=info.architecture != "qwen2moe")
            accuracies = []
            for callback in (None, skipper):
                scorer = MultipleChoiceScorer(
                    model, load_questions(path), template=template or QUESTION_TEMPLATE, threads=threads,
                    on_tensor=callback,
                )  # fmt: skip
                accuracies.append(scorer.score().accuracy)
                scorer.close()
            scores.append(
                SkippingScore(
                    questions=path.stem, accuracy=accuracies[0], accuracy_skipping=accuracies[1],
                    share_skipped=skipper.share_skipped,
                )
            )  # fmt: skip
    return SkippingResult(betas=betas, tasks=tuple(scores))
