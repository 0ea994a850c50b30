"""Statistics of every architecture that has them, against a plain computation from the file's weights and the table."""

import re
from pathlib import Path
from typing import Any

import gguf as gguf_library
import numpy as np
import pytest

from shared.checkpoints import gguf, surgery
from shared.checkpoints.architectures import ARCHITECTURES
from shared.checkpoints.gguf_experts import describe, expert_layers, routing_of
from shared.kernel.errors import ConfigurationError
from shared.llama import model as llama
from shared.wire.surgeon_jobs import PlanOptions
from surgeon.conversion.imatrix import importance_matrix
from surgeon.observation import statistics
from surgeon.observation.corpus import Corpus
from surgeon.observation.observe import ObserveOptions, observe
from surgeon.planning.plan_making import make_plan, ranking_inputs
from surgeon.rankings.base import RankingInputs
from surgeon.rankings.registry import ranking_named
from surgeon.search.masking import ExpertMask
from surgeon.search.merge_evolution import WeightsInMemory
from surgeon.search.offline_experts import LayerExperts
from surgeon.search.reconstruction import ReconstructionLoss
from surgeon.search.registry import search_named
from surgeon.verification.verify import verify
from tests.support.tiny_models import ACTIVE, N_EXPERTS, RECIPES, VARIANTS, Recipe, make_model

TEXT = "The river Rhine flows north to the sea, and water boils at one hundred degrees. " * 4
CORPUS = Corpus({"text": TEXT}, "0" * 64)
CASES = {
    **{name: recipe for name, recipe in RECIPES.items() if not ARCHITECTURES[name].no_surgery}, **VARIANTS
}  # fmt: skip
OBSERVED = {name: recipe for name, recipe in CASES.items() if not ARCHITECTURES[recipe.architecture].no_statistics}


class PlainLayer:
    """The experts of one layer in float64, as the file has them."""

    def __init__(self, file: gguf.GgufFile, layer: int) -> None:
        self.file, self.layer = file, layer
        self.routing = routing_of(file)
        self.activation = ARCHITECTURES[file.architecture].activation

    def values(self, name: str) -> Any:
        tensor = self.file.tensor(f"blk.{self.layer}.{name}")
        if tensor is None:
            return None
        raw = np.fromfile(tensor.file, np.uint8, tensor.n_bytes, offset=tensor.offset)
        values = gguf_library.dequantize(raw, gguf_library.GGMLQuantizationType(tensor.kind))
        return values.reshape(tuple(reversed(tensor.ne))).astype(np.float64)

    def gates(self, inputs: Any) -> tuple[Any, Any, Any]:
        """Return probabilities [T, E], chosen experts [T, k] and their gates."""
        logits = inputs @ self.values("ffn_gate_inp.weight").T
        if (bias := self.values("ffn_gate_inp.bias")) is not None:
            logits = logits + bias
        match self.routing.gating:
            case "sigmoid":
                scores = 1 / (1 + np.exp(-logits))
            case "sqrt_softplus":
                scores = np.sqrt(np.log1p(np.exp(logits)))
            case "softmax":
                scores = softmax(logits)
            case "softmax_of_selected":
                scores = logits
        ranked = scores
        own = next((b for n in ("exp_probs_b.bias", "exp_probs_b") if (b := self.values(n)) is not None), None)
        if own is not None:
            ranked = scores + own
        groups = self.file.get(f"{self.file.architecture}.expert_group_count")
        if isinstance(groups, int) and groups > 1:
            by_group = ranked.reshape(len(ranked), groups, -1)
            best = np.sort(by_group, axis=2)[:, :, -2:].sum(axis=2).argmax(axis=1)
            shut = np.full_like(by_group, -np.inf)
            shut[np.arange(len(ranked)), best] = by_group[np.arange(len(ranked)), best]
            ranked = shut.reshape(ranked.shape)
        chosen = np.argsort(-ranked, axis=1, kind="stable")[:, :ACTIVE]
        gates = np.take_along_axis(scores, chosen, axis=1)
        if self.routing.gating == "softmax_of_selected":
            gates, scores = softmax(gates), softmax(scores)
        if self.routing.normalises:
            gates = gates / gates.sum(axis=1, keepdims=True)
        scale = self.file.get(f"{self.file.architecture}.expert_weights_scale")
        return scores, chosen, gates * (scale if isinstance(scale, float) else 1.0)

    def norms(self, inputs: Any, expert: int) -> Any:
        """Return the norm of what one expert says to each token."""

        def product(x: Any, part: str) -> Any:
            y = x @ self.values(f"ffn_{part}_exps.weight")[expert].T
            for kind, join in (("scale", np.multiply), ("bias", np.add)):
                if (extra := self.values(f"ffn_{part}_exps.{kind}")) is not None:
                    y = join(y, extra[expert])
            return y

        if self.file.tensor(f"blk.{self.layer}.ffn_gate_up_exps.weight") is not None:
            gate, up = np.split(product(inputs, "gate_up"), 2, axis=1)
        else:
            gate, up = product(inputs, "gate"), product(inputs, "up")
        limit = self.file.get(f"{self.file.architecture}.swiglu_clamp_exp")
        if self.activation == "swiglu_oai":
            gate, up = np.minimum(gate, 7.0), np.clip(up, -7.0, 7.0) + 1
            inner = gate / (1 + np.exp(-1.702 * gate)) * up
        elif self.activation == "gelu":
            inner = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) * up
        else:
            if isinstance(limit, float):
                gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
            inner = gate / (1 + np.exp(-gate)) * up
        return np.linalg.norm(product(inner, "down"), axis=1)


def softmax(values: Any) -> Any:
    grown = np.exp(values - values.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", OBSERVED)
def test_statistics_equal_a_plain_computation(tmp_path: Path, name: str) -> None:
    path = make_model(tmp_path / "base.gguf", OBSERVED[name])
    file = gguf.parse(path)
    options = ObserveOptions(window_tokens=64, reservoir=10_000, cache_f32=True, columns=True)
    seen = observe(path, CORPUS, options)
    inputs = seen.reservoir["inputs"].astype(np.float64)
    assert inputs.shape[:2] == (describe(file).n_layers, seen.n_tokens)
    matrix = importance_matrix(seen)
    experts = [t for t in file.tensors if re.fullmatch(r"blk\.\d+\.ffn_\w+_exps\.weight", t.name)]
    trunk = [t for t in experts if int(t.name.split(".")[1]) in expert_layers(file)]
    assert [t.name for t in trunk if matrix[t.name].size != N_EXPERTS * t.ne[0]] == []
    tolerance = 2e-2 if OBSERVED[name].experts_as != "F32" else 1e-3
    for row, layer in enumerate(expert_layers(file)):
        plain = PlainLayer(file, layer)
        scores, chosen, gates = plain.gates(inputs[row])
        counts = np.bincount(chosen.ravel(), minlength=N_EXPERTS)
        assert seen.total("selections")[row].tolist() == counts.tolist()
        np.testing.assert_allclose(seen.total("softmax_sum")[row], scores.sum(0), rtol=1e-3)
        gate_sums = np.bincount(chosen.ravel(), gates.ravel(), N_EXPERTS)
        np.testing.assert_allclose(seen.total("gate_sum")[row], gate_sums, rtol=1e-3, atol=1e-5)
        for expert in range(N_EXPERTS):
            mine = np.where((chosen == expert).any(axis=1))[0]
            norms = plain.norms(inputs[row][mine], expert)
            weights = gates[mine][chosen[mine] == expert]
            found = seen.total("norm_sum")[row, expert], seen.total("gate_norm_sum")[row, expert]
            np.testing.assert_allclose(found, (norms.sum(), (norms * weights).sum()), rtol=tolerance, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in CASES if name not in OBSERVED])
def test_experts_that_cannot_be_observed_say_why(tmp_path: Path, name: str) -> None:
    path = make_model(tmp_path / "base.gguf", CASES[name])
    reason = ARCHITECTURES[CASES[name].architecture].no_statistics
    with pytest.raises(ConfigurationError, match=f"cannot be observed: {reason}"):
        observe(path, CORPUS)


def test_the_recipe_is_the_whole_of_a_tiny_model(tmp_path: Path) -> None:
    """The same recipe gives the same bytes, another seed others."""
    first, second = (make_model(tmp_path / f"{n}.gguf", Recipe("olmoe")).read_bytes() for n in range(2))
    assert first == second != make_model(tmp_path / "3.gguf", Recipe("olmoe"), seed=1).read_bytes()


@pytest.mark.parametrize(("layout", "depth"), [("uniform", 2), ("biased", 3)])
def test_a_plan_made_for_groups_is_one_that_groups_allow(tmp_path: Path, layout: str, depth: int) -> None:
    """From observation to the running file: DeepSeek-V3's routing in groups."""
    base = make_model(tmp_path / "base.gguf", VARIANTS["DeepSeek-V3 in groups"])
    statistics.save(observe(base, CORPUS, ObserveOptions(window_tokens=64)), tmp_path / "seen.st")
    inputs = ranking_inputs(tmp_path / "seen.st", None, None)
    choice = PlanOptions(method="frequency", depth=depth, layout=layout)
    plan = make_plan(choice, inputs, base_sha256=None, statistics_sha256=None)
    surgery.apply_plan(base, plan, tmp_path / "cut.gguf")
    verify(base, plan, tmp_path / "cut.gguf")
    with llama.Model(tmp_path / "cut.gguf") as model, llama.Context(
        model, context_tokens=16, batch_tokens=16
    ) as context:  # fmt: skip
        context.decode([1, 2, 3], range(3))
        assert np.isfinite(context.logits(2)).all()
    if layout == "uniform":
        with pytest.raises(ConfigurationError, match="5 experts cannot be kept equally in 2 groups"):
            make_plan(choice.model_copy(update={"depth": 3}), inputs, base_sha256=None, statistics_sha256=None)


def test_aimer_reads_fused_matrices_as_it_reads_two(tmp_path: Path) -> None:
    fused = make_model(tmp_path / "fused.gguf", RECIPES["qwen35moe"])
    apart = make_model(tmp_path / "apart.gguf", VARIANTS["gate and up apart, Qwen3.5"])
    first, second = (ranking_named("aimer").saliency(RankingInputs(2, 8, model_path=path)) for path in (fused, apart))
    np.testing.assert_allclose(first, second, rtol=1e-12)


@pytest.mark.parametrize("name", ["qwen3moe", "olmoe", "qwen35moe"])
def test_naees_loss_is_the_change_of_the_layers_output(tmp_path: Path, name: str) -> None:
    """Of the engine itself, with dropped experts masked: gates divided by their sum or as they are, fused matrices."""
    base = make_model(tmp_path / "base.gguf", RECIPES[name])
    seen = observe(base, CORPUS, ObserveOptions(window_tokens=64, reservoir=10_000, cache_f32=True))
    experts = LayerExperts.load(base, 0)
    inputs = seen.reservoir["inputs"][0]
    kept = (0, 1, 4, 6)
    loss = ReconstructionLoss(
        experts.probabilities(inputs), experts.outputs(inputs), ACTIVE, normalises=experts.normalises
    )
    outputs: list[Any] = []
    for hidden in (None, [kept, tuple(range(N_EXPERTS))]):
        mask = ExpertMask(range(2), N_EXPERTS)
        mask.keep(hidden)

        def look(tensor: llama.Tensor, ask: bool, mask: ExpertMask = mask) -> bool:
            if tensor.raw_name != b"ffn_moe_out-0":
                return mask(tensor, ask)
            if not ask:
                outputs.append(tensor.read())
            return True

        with (
            llama.Model(base) as model,
            llama.Context(model, context_tokens=64, batch_tokens=64, cache_f32=True, on_tensor=look) as context,
        ):
            tokens = model.tokenize(TEXT)
            assert len(tokens) == len(inputs) <= 64, "one window"
            context.decode(tokens, range(len(tokens)))
    assert np.linalg.norm(outputs[1] - outputs[0]) == pytest.approx(loss(kept), rel=1e-3)


@pytest.mark.parametrize("name", ["gpt-oss", "grok", "glm4moe"])
def test_naee_refuses_experts_that_it_cannot_compute(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be computed outside of the engine"):
        LayerExperts.load(make_model(tmp_path / "base.gguf", RECIPES[name]), 0)
    info = describe(gguf.parse(tmp_path / "base.gguf"))
    if name != "glm4moe":  # whose file says how gates are made
        with pytest.raises(ConfigurationError, match="not possible for"):
            search_named("naee", {}).check(info, 2)


def test_searches_refuse_groups_before_any_work(tmp_path: Path) -> None:
    info = describe(gguf.parse(make_model(tmp_path / "base.gguf", VARIANTS["DeepSeek-V3 in groups"])))
    for name in ("naee", "eep"):
        with pytest.raises(ConfigurationError, match="chosen in 2 groups"):
            search_named(name, {}).check(info, 2)


@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        (RECIPES["qwen35moe"], "gate_up"),  # the node of the gate is a part of gate and up, no product with weights
        (RECIPES["gpt-oss"], "biased"), (VARIANTS["scales"], "scaled"), (RECIPES["dots1"], "probs_biased"),
    ],
)  # fmt: skip
def test_merging_in_memory_refuses_experts_that_are_more_than_three_matrices(
    tmp_path: Path, recipe: Recipe, more: str
) -> None:
    path = make_model(tmp_path / "base.gguf", recipe)
    with llama.Model(path, use_mmap=False) as model, pytest.raises(ConfigurationError, match=more):
        WeightsInMemory(model, range(2))


def test_merging_in_memory_finds_the_layers_with_experts(tmp_path: Path) -> None:
    recipe = Recipe("deepseek", {"leading_dense_block_count": 1, "block_count": 3})
    path = make_model(tmp_path / "base.gguf", recipe)
    layers = expert_layers(gguf.parse(path))
    assert layers == (1, 2)
    with llama.Model(path, use_mmap=False) as model:
        WeightsInMemory(model, layers)
        with pytest.raises(ConfigurationError, match="not in the graph"):
            WeightsInMemory(model, range(2))
