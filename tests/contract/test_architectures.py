"""Every architecture of the table, cut: made tiny, applied, verified, loaded by llama.cpp, compared with its mask."""

from pathlib import Path

import numpy as np
import pytest

from shared.checkpoints import gguf, surgery
from shared.checkpoints.architectures import ARCHITECTURES
from shared.checkpoints.gguf_experts import describe, expert_layers
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Layout, SurgeryPlan
from shared.llama import model as llama
from surgeon.verification.verify import verify
from tests.support.masks import mask_of
from tests.support.tiny_models import N_EXPERTS, RECIPES, VARIANTS, Recipe, make_model

TOKENS = list(range(5, 37))
CASES = {
    **{name: recipe for name, recipe in RECIPES.items() if not ARCHITECTURES[name].no_surgery}, **VARIANTS
}  # fmt: skip
UNSUBSTITUTED = (VARIANTS["scales of Mixtral"],)
"""What the graph of their substitute would leave out."""


def kept_of(n_layers: int) -> tuple[tuple[int, ...], ...]:
    """Drop two experts in each layer, one in each half, others in each layer."""
    return tuple(
        tuple(e for e in range(N_EXPERTS) if e not in (layer % 4, 4 + (layer + 1) % 4)) for layer in range(n_layers)
    )


def log_probabilities(path: Path, plan: SurgeryPlan | None = None, layout: Layout = "uniform") -> np.ndarray:
    mask = mask_of(plan, expert_layers(gguf.parse(path)), layout) if plan is not None else None
    with (
        llama.Model(path) as model,
        llama.Context(model, context_tokens=64, batch_tokens=64, cache_f32=True, on_tensor=mask) as context,
    ):
        context.decode(TOKENS, range(len(TOKENS)))
        logits = np.stack([context.logits(row).astype(np.float64) for row in range(len(TOKENS))])
    assert mask is None or mask.layers_seen > 0
    logits -= logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def cut(base: Path, plan: SurgeryPlan) -> Path:
    target = base.with_name(f"{base.stem}.{plan.layout}.gguf")
    surgery.apply_plan(base, plan, target)
    verify(base, plan, target)
    return target


def check(recipe: Recipe, folder: Path) -> None:
    base = make_model(folder / "base.gguf", recipe)
    info = describe(gguf.parse(base))
    plan = SurgeryPlan(n_experts=N_EXPERTS, kept=kept_of(info.n_layers), method="test")
    before = log_probabilities(base)
    uniform = log_probabilities(cut(base, plan))
    assert difference(uniform, before) > 0.01, "the plan should matter"
    assert difference(uniform, log_probabilities(base, plan)) < 1e-4
    assert bool(info.no_biased) == (ARCHITECTURES[recipe.architecture].bias is None or recipe in UNSUBSTITUTED)
    biased_plan = plan.model_copy(update={"layout": "biased"})
    if info.no_biased:
        with pytest.raises(ConfigurationError, match="has no biased layout"):
            surgery.apply_plan(base, biased_plan, folder / "none.gguf")
        return
    everything = biased_plan.model_copy(update={"kept": (tuple(range(N_EXPERTS)),) * info.n_layers})
    (folder / "control").mkdir()
    control = folder / "control" / "base.gguf"
    surgery.apply_plan(base, everything, control)
    assert difference(log_probabilities(control), before) == 0.0
    biased = log_probabilities(cut(base, biased_plan))
    assert difference(biased, log_probabilities(control, plan, "biased")) < 1e-4
    assert (difference(biased, uniform) < 1e-4) == info.layouts_agree


@pytest.mark.parametrize("name", CASES)
def test_an_architecture_is_cut_exactly(tmp_path: Path, name: str) -> None:
    check(CASES[name], tmp_path)
