"""ClusterLM over our engine on an F32 GGUF chooses exactly what lm-eval's own Hugging Face backend chooses.

With PyTorch installed the backend runs here and now; without it, its recorded answers are compared, and they must
belong to the very model and prompts of this tree (`tests.support.benchmarks_reference`).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.engines.scoring import Scorer
from node_agent.engines.tokens import Tokenizer
from orchestrator.benchmarks.records import SuiteResult
from orchestrator.benchmarks.suite import BenchmarkSuite
from shared.llama.model import Context, Model
from shared.wire.node_jobs.workloads import ScoreParams, ScoreResult
from surgeon.conversion.to_gguf import convert
from tests.support.benchmarks_reference import (
    LIVE_QUESTIONS,
    MODEL,
    QUESTIONS,
    ROLES,
    HfReference,
    can_run_live,
    demo_suite,
    model_sha256,
    prompts_of,
    reference_for,
)

# The live backend is slow on a busy machine.
pytestmark = pytest.mark.timeout(900)

LOG_LIKELIHOOD_TOLERANCE = 1e-3
CONTEXT_TOKENS, SEQUENCES, OUTPUTS = 4096, 32, 512


@pytest.fixture(scope="module")
def suite() -> BenchmarkSuite:
    return demo_suite()


@pytest.fixture(scope="module")
def ours(suite: BenchmarkSuite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuiteResult]:
    path: Path = tmp_path_factory.mktemp("equality") / "demo-f32.gguf"
    convert(MODEL, path, outtype="F32")
    with Model(path) as model, Context(
        model, context_tokens=CONTEXT_TOKENS, batch_tokens=512, sequences=SEQUENCES, most_outputs=OUTPUTS,
        cache_f32=True,
    ) as context:  # fmt: skip
        scorer = Scorer(
            context, Tokenizer(model), context_tokens=CONTEXT_TOKENS, sequences=SEQUENCES, most_outputs=OUTPUTS
        )

        def score(params: ScoreParams) -> ScoreResult:
            return scorer.score(params, lambda _fraction, _message: None)

        yield suite.run(score)


@pytest.fixture(scope="module")
def theirs(suite: BenchmarkSuite) -> HfReference:
    reference, kind = reference_for(suite)
    cure = "record the reference again: python -m tests.support.benchmarks_reference"
    assert reference.model_sha256 == model_sha256(), f"the {kind} reference is of another model; {cure}"
    assert reference.prompts_sha256 == prompts_of(suite), f"the {kind} reference is of other prompts; {cure}"
    return reference


@pytest.mark.parametrize("task", ROLES.values())
def test_choices_are_equal_and_log_likelihoods_close(ours: SuiteResult, theirs: HfReference, task: str) -> None:
    mine = [question for question in ours.questions if question.task == task]
    assert len(mine) == QUESTIONS
    compared = len(theirs.choices[task])
    assert compared == (LIVE_QUESTIONS if can_run_live() else QUESTIONS)
    mine = mine[:compared]
    worst = 0.0
    for question, expected in zip(mine, theirs.log_likelihoods[task], strict=True):
        assert len(question.log_likelihoods) == len(expected) == 4
        worst = max(worst, *(abs(a - b) for a, b in zip(question.log_likelihoods, expected, strict=True)))
    assert worst < LOG_LIKELIHOOD_TOLERANCE
    assert [question.choice for question in mine] == list(theirs.choices[task])
    assert [question.correct for question in mine] == list(theirs.correct[task])


@pytest.mark.parametrize("task", ROLES.values())
def test_the_model_is_above_chance(ours: SuiteResult, task: str) -> None:
    """Equality on noise would prove little: the demo model knows its tasks."""
    assert ours.accuracy[task] > 0.35
