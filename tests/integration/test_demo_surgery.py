"""The demo model under the knife: what quantisation costs, what a variant weighs, and that the dropped stay unused."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from node_agent.engines.scoring import Scorer
from node_agent.engines.tokens import Tokenizer
from orchestrator.benchmarks.records import SuiteResult, SuiteSpec
from orchestrator.benchmarks.suite import BenchmarkSuite
from shared.checkpoints import gguf, surgery
from shared.kernel.records import SurgeryPlan
from shared.llama.model import Context, Model
from shared.wire.node_jobs.workloads import ScoreParams, ScoreResult
from surgeon.conversion.quantize import quantize
from surgeon.conversion.to_gguf import convert
from tests.support.benchmarks_reference import MODEL, ROLES, TASKS
from tests.support.selection_counts import count_selected

pytestmark = pytest.mark.timeout(900)

EXPERTS, LAYERS = 16, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    convert(MODEL, folder / "f32.gguf", outtype="F32")
    convert(MODEL, folder / "f16.gguf", outtype="F16")
    quantize(folder / "f16.gguf", folder / "base.gguf", "Q4_K_M")
    return folder


@pytest.fixture(scope="module")
def suite() -> BenchmarkSuite:
    """All questions of the three tasks."""
    return BenchmarkSuite(SuiteSpec.from_roles(ROLES, questions=None, seed=1, include_paths=(TASKS,)))


def ask(path: Path, suite: BenchmarkSuite) -> tuple[SuiteResult, list[str]]:
    """Score the whole suite on one file; return the result and every text that was evaluated."""
    texts: list[str] = []
    with Model(path) as model, Context(
        model, context_tokens=4096, batch_tokens=512, sequences=32, most_outputs=512
    ) as context:  # fmt: skip
        scorer = Scorer(context, Tokenizer(model), context_tokens=4096, sequences=32, most_outputs=512)

        def score(params: ScoreParams) -> ScoreResult:
            for group in params.groups:
                for item in group.items:
                    texts.extend(group.prefix + item.suffix + ending for ending in item.continuations)
            return scorer.score(params, lambda _fraction, _message: None)

        return suite.run(score), texts


@pytest.fixture(scope="module")
def baseline(folder: Path, suite: BenchmarkSuite) -> Iterator[tuple[SuiteResult, list[str]]]:
    yield ask(folder / "base.gguf", suite)


def test_q4_k_m_keeps_every_accuracy_within_two_points_of_f32(
    folder: Path, suite: BenchmarkSuite, baseline: tuple[SuiteResult, list[str]]
) -> None:
    exact, _ = ask(folder / "f32.gguf", suite)
    quantised, _ = baseline
    for task in ROLES.values():
        assert exact.n[task] >= 250
        assert exact.accuracy[task] > 0.8
        assert abs(quantised.accuracy[task] - exact.accuracy[task]) <= 0.02, task


def plan(dropped: list[list[int]], layout: str) -> SurgeryPlan:
    kept = tuple(tuple(sorted(set(range(EXPERTS)) - set(ids))) for ids in dropped)
    return SurgeryPlan.model_validate({"n_experts": EXPERTS, "kept": kept, "layout": layout})


def expert_bytes(file: gguf.GgufFile) -> int:
    """Return the bytes of one expert of every layer with its row of the router."""
    per_expert = sum(t.n_bytes // EXPERTS for t in file.tensors if "_exps." in t.name)
    router = sum(t.n_bytes // EXPERTS for t in file.tensors if "ffn_gate_inp." in t.name)
    return per_expert + router


@pytest.mark.parametrize("depth", [1, 4, 8])
def test_a_uniform_variant_is_smaller_by_exactly_the_removed_experts(folder: Path, depth: int) -> None:
    base = gguf.load(folder / "base.gguf")
    target = folder / f"drop{depth}.gguf"
    surgery.apply_plan(folder / "base.gguf", plan([list(range(depth))] * LAYERS, "uniform"), target)
    variant = gguf.load(target)
    before, after = (sum(t.n_bytes for t in file.tensors) for file in (base, variant))
    assert before - after == depth * expert_bytes(base)
    assert variant.integer("expert_count") == EXPERTS - depth


@pytest.mark.slow
def test_dropped_experts_of_a_biased_variant_are_selected_0_times_over_the_whole_suite(
    folder: Path, baseline: tuple[SuiteResult, list[str]]
) -> None:
    _, texts = baseline
    assert len(texts) > 3000
    dropped = [[], [], [], [0, 3, 7, 15]]
    surgery.apply_plan(folder / "base.gguf", plan(dropped, "biased"), folder / "late.gguf")
    counts = count_selected(folder / "late.gguf", texts, threads=2)
    assert counts.shape == (LAYERS, EXPERTS)
    assert np.all(counts.sum(axis=1) == counts.sum(axis=1)[0])
    for layer, ids in enumerate(dropped):
        assert counts[layer, ids].sum() == 0
        others = np.setdiff1d(np.arange(EXPERTS), ids)
        assert counts[layer, others].sum() > 100_000
