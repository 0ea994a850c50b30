"""Statistics from the engine equal a plain numpy forward, add up exactly, and every trap is caught."""

from pathlib import Path

import numpy as np
import pytest

from shared.checkpoints.base import CheckpointInfo
from shared.kernel.errors import ConfigurationError, DataError
from shared.llama import model as llama
from surgeon.conversion.to_gguf import convert
from surgeon.observation import statistics
from surgeon.observation.corpus import load_corpus, windows
from surgeon.observation.layer_sums import LayerView
from surgeon.observation.observe import ObserveOptions, observe
from surgeon.rankings.base import RankingInputs
from surgeon.rankings.registry import ranking_named
from tests.support.checkpoint_factory import TEXT, make_checkpoint
from tests.support.numpy_forward import NumpyQwen3Moe, naive_statistics

OPTIONS = ObserveOptions(window_tokens=96, columns=True, reservoir=40, cache_f32=True)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("observe")
    make_checkpoint(root / "hf", n_layers=3, n_experts=12, experts_per_token=3)
    convert(root / "hf", root / "f32.gguf", outtype="F32")
    (root / "left.txt").write_text(TEXT[:600])
    (root / "right.txt").write_text(TEXT[300:1100])
    return root


@pytest.fixture(scope="module")
def one_pass(lab: Path) -> statistics.Statistics:
    return observe(lab / "f32.gguf", load_corpus([lab / "left.txt", lab / "right.txt"]), OPTIONS)


@pytest.fixture(scope="module")
def reference(lab: Path) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, list]]:
    """Naive sums and traces by domain."""
    model = NumpyQwen3Moe(lab / "hf")
    with llama.Model(lab / "f32.gguf") as tokenizer:
        todo = windows(tokenizer, load_corpus([lab / "left.txt", lab / "right.txt"]), OPTIONS.window_tokens)
    sums: dict[str, dict[str, np.ndarray]] = {}
    traces: dict[str, list] = {}
    for window in todo:
        _, trace = model.forward(window.tokens.tolist())
        traces.setdefault(window.domain, []).append(trace)
        for name, value in naive_statistics(trace).items():
            domain = sums.setdefault(window.domain, {})
            combine = np.maximum if name == "norm_max" else np.add
            domain[name] = combine(domain.get(name, 0.0), value)
    return sums, traces


def test_every_sum_equals_a_plain_forward(one_pass: statistics.Statistics, reference: tuple) -> None:
    sums, _ = reference
    assert set(one_pass.domains) == set(sums)
    for domain, expected in sums.items():
        for name, value in expected.items():
            found = one_pass.domains[domain][name]
            if name == "selections":
                assert (found == value).all()
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5, err_msg=f"{domain} {name}")


def test_scores_equal_the_definitions(one_pass: statistics.Statistics, reference: tuple, lab: Path) -> None:
    sums, _ = reference
    total = {
        name: sum(domain[name] for domain in sums.values())
        for name in ("selections", "norm_sum", "gate_norm_sum", "easy_sum")
    }
    inputs = RankingInputs(3, 12, one_pass, model_path=lab / "f32.gguf")
    weights = NumpyQwen3Moe(lab / "hf").weights

    def aimer(layer: int, expert: int) -> float:
        parts = [
            weights[f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight"].ravel()
            for part in ("gate", "up", "down")
        ]
        w = np.concatenate(parts)
        return -np.abs(w).mean() / np.sqrt((w**2).mean())

    expected = {
        "frequency": total["selections"], "ean": total["norm_sum"], "weighted_ean": total["gate_norm_sum"],
        "reap": total["gate_norm_sum"] / np.maximum(total["selections"], 1), "easy_ep": total["easy_sum"],
        "aimer": np.array([[aimer(layer, expert) for expert in range(12)] for layer in range(3)]),
    }  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(ranking_named(name).saliency(inputs), value, rtol=1e-4, err_msg=name)


def test_columns_and_ratios_equal_a_plain_forward(one_pass: statistics.Statistics, reference: tuple) -> None:
    _, traces = reference
    for domain, runs in traces.items():
        found = one_pass.domains[domain]
        for layer in range(3):
            squares, inner = np.zeros((12, 64)), np.zeros((12, 32))
            gated, ratios = np.zeros((12, 32)), []
            for trace in (run[layer] for run in runs):
                for t, experts in enumerate(trace.selected):
                    ratios.append(trace.gates[t, 1] / trace.gates[t, 0])
                    for slot, expert in enumerate(experts):
                        squares[expert] += trace.inputs[t] ** 2
                        inner[expert] += trace.inner[t, slot] ** 2
                        gated[expert] += (trace.gates[t, slot] * trace.inner[t, slot]) ** 2
            np.testing.assert_allclose(found["input_square_sum"][layer], squares, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(found["inner_square_sum"][layer], inner, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(found["inner_gate_square_sum"][layer], gated, rtol=1e-3, atol=1e-4)
            histogram = found["ratio_histogram"][layer]
            assert histogram.sum() == len(ratios)
            median = (np.searchsorted(np.cumsum(histogram), len(ratios) / 2) + 0.5) / histogram.size
            assert abs(median - np.median(ratios)) < 0.01


def test_shards_add_up_to_the_very_same_file(lab: Path, one_pass: statistics.Statistics, tmp_path: Path) -> None:
    corpus = load_corpus([lab / "left.txt", lab / "right.txt"])
    parts = []
    for number in (2, 0, 1):
        options = ObserveOptions(**{**OPTIONS.__dict__, "shard": (number, 3)})
        statistics.save(observe(lab / "f32.gguf", corpus, options), tmp_path / f"{number}")
        parts.append(statistics.load(tmp_path / f"{number}"))
    statistics.save(one_pass, tmp_path / "one")
    statistics.save(statistics.merge(parts), tmp_path / "merged")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "merged").read_bytes()
    with pytest.raises(ConfigurationError, match="in two files"):
        statistics.merge([parts[0], parts[0]])


def test_an_interrupted_run_goes_on(
    lab: Path, one_pass: statistics.Statistics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("surgeon.observation.observe._SAVE_EVERY", 1)
    corpus = load_corpus([lab / "left.txt", lab / "right.txt"])

    class KilledError(RuntimeError):
        pass

    def kill(done: int, total: int) -> None:
        if done > total / 2:
            raise KilledError

    with pytest.raises(KilledError):
        observe(lab / "f32.gguf", corpus, OPTIONS, resume=tmp_path / "resume", on_progress=kill)
    assert 0 < statistics.load(tmp_path / "resume").n_tokens < one_pass.n_tokens
    statistics.save(observe(lab / "f32.gguf", corpus, OPTIONS, resume=tmp_path / "resume"), tmp_path / "done")
    statistics.save(one_pass, tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "done").read_bytes()
    with pytest.raises(ConfigurationError, match="corpus_sha256"):
        observe(lab / "f32.gguf", load_corpus([lab / "left.txt"]), OPTIONS, resume=tmp_path / "resume")


@pytest.mark.parametrize("naming", ["qwen2", "mixtral"])
def test_other_architectures_too(tmp_path: Path, naming: str) -> None:
    """Conversion, engine and sums against a plain forward.

    Qwen2-MoE has gates that are not renormalised, a shared expert, biases; Mixtral another RoPE, names and tokenizer.
    """
    make_checkpoint(
        tmp_path / "hf", n_layers=2, n_experts=6, experts_per_token=2, naming=naming, hidden=128, heads=4, kv_heads=2
    )
    convert(tmp_path / "hf", tmp_path / "f32.gguf", outtype="F32")
    (tmp_path / "text.txt").write_text(TEXT[:300])
    options = ObserveOptions(window_tokens=256, cache_f32=True)
    seen = observe(tmp_path / "f32.gguf", load_corpus([tmp_path / "text.txt"]), options)
    with (
        llama.Model(tmp_path / "f32.gguf") as model,
        llama.Context(model, context_tokens=256, batch_tokens=256, cache_f32=True) as context,
    ):
        tokens = model.tokenize(TEXT[:300])
        context.decode(tokens, range(len(tokens)))
        logits = np.stack([context.logits(row).astype(np.float64) for row in range(len(tokens))])
    log_p, traces = NumpyQwen3Moe(tmp_path / "hf").forward(tokens)
    found = logits - logits.max(1, keepdims=True)
    found -= np.log(np.exp(found).sum(1, keepdims=True))
    np.testing.assert_allclose(found, log_p, atol=2e-3)
    for name, value in naive_statistics(traces).items():
        np.testing.assert_allclose(seen.domains["text"][name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_domain_weights_blend_per_token(one_pass: statistics.Statistics) -> None:
    tokens = one_pass.provenance.n_tokens
    blended = one_pass.total("selections", {"left": 3.0, "right": 1.0})
    left, right = (one_pass.domains[name]["selections"] / tokens[name] for name in ("left", "right"))
    np.testing.assert_allclose(blended, 3 * left + right)
    with pytest.raises(ConfigurationError, match="no such domain"):
        one_pass.total("selections", {"nowhere": 1.0})


def _good_tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    logits = random.normal(size=(10, 6))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    selected = np.argsort(-probabilities, axis=1)[:, :2].astype(np.int32)
    gates = np.take_along_axis(probabilities, selected, 1)
    gates /= gates.sum(1, keepdims=True)
    outputs = random.normal(size=(10, 2, 8))
    return {
        "ffn_moe_probs": probabilities, "ffn_moe_topk": selected, "ffn_moe_weights_norm": gates,
        "ffn_moe_down": outputs,
        "inputs": random.normal(size=(10, 8)), "before": random.normal(size=(10, 8)),
        "ffn_moe_out": np.einsum("tk,tkd->td", gates, outputs),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("ffn_moe_topk", lambda a: np.arange(20, dtype=np.int32).reshape(10, 2) % 6, "not the most probable"),
        ("ffn_moe_topk", lambda a: np.zeros_like(a), "selections by 10 tokens"),
        ("ffn_moe_topk", lambda a: a + 100, "beyond 5"),
        ("ffn_moe_probs", lambda a: a[-1:], "expected"),  # the last layer saw one token only
        ("ffn_moe_topk", lambda a: np.tile(np.arange(6, dtype=np.int32), (10, 1)), "expected"),  # a warm-up
        ("ffn_moe_down", lambda a: a * 3, "not the layer's output"),
    ],
)
def test_each_trap_is_caught(name: str, damage: object, message: str) -> None:
    info = CheckpointInfo(
        format="gguf", architecture="qwen3moe", n_layers=1, n_experts=6, experts_per_token=2, size_bytes=0
    )
    tensors = _good_tensors()
    LayerView.from_tensors(tensors, 0, 10, info)
    tensors[name] = damage(tensors[name])  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        LayerView.from_tensors(tensors, 0, 10, info)


def test_a_scaled_down_tensor_wins() -> None:
    info = CheckpointInfo(
        format="gguf", architecture="qwen3moe", n_layers=1, n_experts=6, experts_per_token=2, size_bytes=0
    )
    tensors = _good_tensors()
    tensors["ffn_moe_down_scaled"] = tensors["ffn_moe_down"]
    tensors["ffn_moe_down"] = tensors["ffn_moe_down"] * 7
    view = LayerView.from_tensors(tensors, 0, 10, info)
    assert (view.outputs == tensors["ffn_moe_down_scaled"]).all()
