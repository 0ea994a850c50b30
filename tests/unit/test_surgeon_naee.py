"""NAEE equals brute force with a plain forward on every layer of an 8-expert model; greedy is never better."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from shared.kernel.errors import ConfigurationError
from surgeon.conversion.to_gguf import convert
from surgeon.observation.corpus import load_corpus
from surgeon.observation.observe import ObserveOptions, observe
from surgeon.search.offline_experts import LayerExperts
from surgeon.search.reconstruction import ReconstructionLoss, n_subsets, search_layer
from tests.support.checkpoint_factory import TEXT, make_checkpoint
from tests.support.numpy_forward import NumpyQwen3Moe


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("naee")
    make_checkpoint(root / "hf", n_layers=3, n_experts=8, experts_per_token=2)
    convert(root / "hf", root / "f32.gguf", outtype="F32")
    (root / "text.txt").write_text(TEXT[:500])
    return root


def naive_output(model: NumpyQwen3Moe, layer: int, inputs: np.ndarray, allowed: set[int]) -> np.ndarray:
    """The layer's output with logits of others at -inf, by the reference forward."""
    trace = model._experts(inputs, np.zeros_like(inputs), f"model.layers.{layer}", allowed)
    return trace.routed


@pytest.mark.parametrize("keep", [2, 5, 7])
def test_equals_brute_force_on_every_layer(lab: Path, keep: int) -> None:
    reservoir = observe(
        lab / "f32.gguf",
        load_corpus([lab / "text.txt"]),
        ObserveOptions(window_tokens=64, reservoir=24, cache_f32=True),
    ).reservoir
    model = NumpyQwen3Moe(lab / "hf")
    for layer in range(3):
        inputs = reservoir["inputs"][layer]
        experts = LayerExperts.load(lab / "f32.gguf", layer)
        loss = ReconstructionLoss(experts.probabilities(inputs), experts.outputs(inputs), 2)
        found = search_layer(loss, keep)
        assert found.exhaustive and found.n_evaluated == n_subsets(8, keep)
        full = naive_output(model, layer, inputs.astype(np.float64), set(range(8)))
        brute = {
            subset: np.linalg.norm(naive_output(model, layer, inputs.astype(np.float64), set(subset)) - full)
            for subset in itertools.combinations(range(8), keep)
        }
        best = min(brute, key=lambda subset: brute[subset])
        assert found.kept == best
        assert found.loss == pytest.approx(brute[best], rel=1e-4)


def test_greedy_with_swaps_comes_close(lab: Path) -> None:
    random = np.random.default_rng(5)
    ratios = []
    for _ in range(10):
        logits = random.normal(size=(40, 10)) * 2
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        loss = ReconstructionLoss(probabilities, random.normal(size=(10, 40, 6)), 2)
        exhaustive, greedy = search_layer(loss, 5), search_layer(loss, 5, max_subsets=10)
        assert exhaustive.exhaustive and not greedy.exhaustive
        assert greedy.loss >= exhaustive.loss - 1e-9
        ratios.append(greedy.loss / exhaustive.loss)
    assert np.mean(ratios) < 1.05


def test_impossible_subsets_are_refused() -> None:
    loss = ReconstructionLoss(np.full((3, 4), 0.25), np.ones((4, 3, 2)), 2)
    for keep in (1, 5):
        with pytest.raises(ConfigurationError):
            search_layer(loss, keep)
    assert search_layer(loss, 4).loss == 0.0
