"""What one MoE layer did with the tokens of one window, checked, and the sums that are made of it.

Pure numpy over tensors already read; formulas and their sources stand at each sum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.checkpoints.architectures import Gating
from shared.checkpoints.base import CheckpointInfo
from shared.kernel.errors import DataError
from surgeon.observation.statistics import RATIO_BINS

Array = npt.NDArray[Any]
_TIE = 1e-6
RANKED: Final = ("ffn_moe_probs_masked", "ffn_moe_probs_biased", "ffn_moe_probs")
"""What the top K is taken of: within the chosen groups, with the selection bias, or bare."""
GATES: Final = ("ffn_moe_weights_scaled", "ffn_moe_weights_norm", "ffn_moe_weights_softmax", "ffn_moe_weights")
OUTPUTS: Final = ("ffn_moe_down_biased", "ffn_moe_down_scaled", "ffn_moe_down")
INNER: Final = (
    "ffn_moe_swiglu", "ffn_moe_geglu", "ffn_moe_reglu", "ffn_moe_swiglu_oai", "ffn_moe_swiglu_limited",
)  # fmt: skip
"""What enters the down projection, by activation."""


@dataclass(frozen=True)
class LayerView:
    """One layer, T tokens, E experts, k active."""

    probabilities: Array
    """[T, E] what the gating function makes of the router: a softmax over all experts, or each expert's own score."""
    selected: Array
    """[T, k] expert ids."""
    gates: Array
    """[T, k] final weights."""
    outputs: Array
    """[T, k, n_embd] expert outputs before the gate."""
    inputs: Array
    """[T, n_embd] what router and experts see."""
    before: Array
    """[T, n_embd] residual stream before the experts."""
    routed: Array
    """[T, n_embd] sum of gated expert outputs."""
    inner: Array | None
    """[T, k, n_ff] input of the down projection; None unless columns are collected."""

    @classmethod
    def from_tensors(
        cls, held: Mapping[str, Array], layer: int, n_tokens: int, info: CheckpointInfo, gating: Gating = "softmax"
    ) -> "LayerView":
        """Check the tensors of a layer and give them their shapes.

        Args:
            held: tensors by their names in the graph, and `inputs` and `before`.
            layer: its number, for messages.
            n_tokens: T.
            info: the model's numbers of experts.
            gating: how the graph makes gates.

        Raises:
            DataError: a tensor is missing, has another size, or contradicts another.
        """
        k, n_experts = info.experts_per_token, info.n_experts

        def shaped(name: str, *shape: int) -> Array:
            values = held.get(name)
            wanted = int(np.prod([size for size in shape if size > 0]))
            if values is None or (values.size != wanted if -1 not in shape else values.size % wanted):
                found = "nothing" if values is None else f"{values.shape}"
                raise DataError(
                    f"expected {shape}, found {found}", where=f"{name}-{layer}",
                    hint="tokens are lost, a warm-up ran, or this build of llama.cpp names its tensors otherwise",
                )  # fmt: skip
            return values.reshape(shape)

        def last(names: Sequence[str], *shape: int) -> Array:
            """Return what the graph made last of a value: bare, then biased, divided, scaled."""
            return shaped(next((name for name in names if name in held), names[-1]), *shape)

        probabilities = shaped("ffn_moe_probs", n_tokens, n_experts)
        if len(wrong := np.argwhere(~np.isfinite(probabilities))):
            raise _no_number(f"the router's probability of expert {int(wrong[0][1])}", layer)
        selected = shaped("ffn_moe_topk", n_tokens, k)
        _check_selection(last(RANKED, n_tokens, n_experts), selected, layer)
        if gating == "softmax_of_selected":  # the graph has logits there; their softmax is what a share means
            grown = np.exp(probabilities - probabilities.max(axis=1, keepdims=True))
            probabilities = grown / grown.sum(axis=1, keepdims=True)
        inputs = shaped("inputs", n_tokens, -1)
        inner = next((name for name in INNER if name in held), None)
        view = cls(
            probabilities, selected, last(GATES, n_tokens, k), last(OUTPUTS, n_tokens, k, inputs.shape[1]), inputs,
            shaped("before", n_tokens, inputs.shape[1]), shaped("ffn_moe_out", n_tokens, inputs.shape[1]),
            shaped(inner, n_tokens, k, -1) if inner else None,
        )  # fmt: skip
        view.check_numbers(layer)
        view.check_output(layer)
        return view

    def check_numbers(self, layer: int) -> None:
        """Refuse what a model with damaged weights computes.

        Raises:
            DataError: an expert's output, its gate or the block's input is NaN or infinite; layer and expert are named.
        """
        for values, what in ((self.outputs, "the output"), (self.gates, "the gate"), (self.inner, "the inner values")):
            if values is not None and len(wrong := np.argwhere(~np.isfinite(values))):
                raise _no_number(f"{what} of expert {int(self.selected[tuple(wrong[0][:2])])}", layer)
        for values, what in ((self.inputs, "the input"), (self.routed, "the output")):
            if not np.isfinite(values).all():
                raise _no_number(f"{what} of the block", layer)

    def check_output(self, layer: int) -> None:
        """Compare the gated sum of the outputs of one token with what the layer put out.

        Raises:
            DataError: they differ, so gate or output is not what it is taken for.
        """
        token = len(self.gates) // 2
        expected = self.gates[token] @ self.outputs[token]
        scale = float(np.abs(self.outputs[token]).max()) or 1.0
        if float(np.abs(expected - self.routed[token]).max()) > 1e-3 * scale:
            raise DataError("gates x expert outputs are not the layer's output", where=f"ffn_moe_out-{layer}")


def _no_number(what: str, layer: int) -> DataError:
    return DataError(
        f"{what} in MoE layer {layer} is NaN or infinite",
        hint="the model's weights are damaged: get it again, and compare its hash",
    )


def _check_selection(probabilities: Array, selected: Array, layer: int) -> None:
    """Compare the engine's top-k with an independent one: read flat, the strided tensor would fail here."""
    n_tokens, n_experts = probabilities.shape
    k = selected.shape[1]
    where = f"ffn_moe_topk-{layer}"
    if selected.min(initial=0) < 0 or selected.max(initial=0) >= n_experts:
        raise DataError(f"an expert id beyond {n_experts - 1}", where=where)
    chosen = np.zeros((n_tokens, n_experts), bool)
    np.put_along_axis(chosen, selected.astype(np.int64), True, axis=1)
    if int(chosen.sum()) != n_tokens * k:
        raise DataError(f"{int(chosen.sum())} selections by {n_tokens} tokens of {k} experts each", where=where)
    lowest_chosen = np.where(chosen, probabilities, np.inf).min(axis=1)
    highest_other = np.where(chosen, -np.inf, probabilities).max(axis=1)
    if bool((highest_other > lowest_chosen + _TIE * np.abs(lowest_chosen)).any()):
        raise DataError("the engine's experts are not the most probable ones", where=where)


def layer_sums(view: LayerView) -> dict[str, Array]:
    """Return the contributions of one layer and window to every statistic; float64 and int64.

    Sources: frequency and soft activation (Muzio et al., SEER-MoE, 2404.05089); EAN and REAP (Lasby et al., REAP,
    2510.13999); EASY-EP (Dong et al., 2504.06792); w2/w1 (Lu et al., NAEE, 2402.14800); sums of squares per input
    column (Sun et al., Wanda, 2306.11695; Xie et al., MoE-Pruner, 2410.12013).
    """
    n_experts = view.probabilities.shape[1]
    flat = view.selected.reshape(-1).astype(np.int64)
    norms = np.sqrt(np.einsum("tkd,tkd->tk", view.outputs, view.outputs)).astype(np.float64)
    gates = view.gates.astype(np.float64)

    def by_expert(values: Array) -> Array:
        return np.bincount(flat, values.reshape(-1), n_experts)

    norm_max = np.zeros(n_experts)
    np.maximum.at(norm_max, flat, norms.reshape(-1))
    change = np.maximum(0.0, 1.0 - _cosine(view.before, view.before + view.routed))
    sums: dict[str, Array] = {
        "selections": np.bincount(flat, minlength=n_experts).astype(np.int64),
        "softmax_sum": view.probabilities.sum(axis=0, dtype=np.float64),
        "gate_sum": by_expert(gates),
        "norm_sum": by_expert(norms),
        "norm_max": norm_max,
        "gate_norm_sum": by_expert(gates * norms),
        "easy_sum": by_expert(change[:, None] * gates * norms),
        "ratio_histogram": _ratio_histogram(gates),
    }
    if view.inner is not None:
        sums.update(_column_sums(view, flat, n_experts))
    return sums


def _cosine(a: Array, b: Array) -> Array:
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a64, axis=1) * np.linalg.norm(b64, axis=1)
    cosine: Array = np.einsum("td,td->t", a64, b64) / np.maximum(norms, 1e-30)
    return cosine


def _ratio_histogram(gates: Array) -> Array:
    """Count w2/w1, the second-largest gate over the largest, in equal bins over [0, 1]."""
    if gates.shape[1] < 2:
        return np.zeros(RATIO_BINS, np.int64)
    ordered = np.sort(gates, axis=1)
    ratio = ordered[:, -2] / np.maximum(ordered[:, -1], 1e-30)
    bins = np.minimum((ratio * RATIO_BINS).astype(np.int64), RATIO_BINS - 1)
    return np.bincount(bins, minlength=RATIO_BINS).astype(np.int64)


def _column_sums(view: LayerView, flat: Array, n_experts: int) -> dict[str, Array]:
    """Return sums of squares of what enters gate and up ([E, n_embd]) and down ([E, n_ff]), bare and times the gate."""
    assert view.inner is not None
    n_tokens, k = view.selected.shape
    weight = np.zeros((2, n_experts, n_tokens))
    token = np.repeat(np.arange(n_tokens), k)
    weight[0, flat, token] = 1.0
    weight[1, flat, token] = view.gates.reshape(-1).astype(np.float64) ** 2
    squares = view.inputs.astype(np.float64) ** 2
    order = np.argsort(flat, kind="stable")
    inner = (view.inner.reshape(n_tokens * k, -1)[order]).astype(np.float64) ** 2
    gate2 = view.gates.reshape(-1)[order].astype(np.float64) ** 2
    present, begins = np.unique(flat[order], return_index=True)
    bare, gated = np.zeros((2, n_experts, inner.shape[1]))
    bare[present] = np.add.reduceat(inner, begins, axis=0)
    gated[present] = np.add.reduceat(inner * gate2[:, None], begins, axis=0)
    return {
        "input_square_sum": weight[0] @ squares,
        "input_gate_square_sum": weight[1] @ squares,
        "inner_square_sum": bare,
        "inner_gate_square_sum": gated,
    }
