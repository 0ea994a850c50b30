"""Scores with shared prefixes equal those of one plain pass a continuation, in this process and over RPC."""

from collections.abc import Iterator

import numpy as np
import pytest

from node_agent.engines.scoring import Scorer
from node_agent.engines.tokens import Tokenizer
from shared.kernel.records import TokenLedger
from shared.llama.model import Context, Model
from shared.wire.node_jobs.workloads import ScoreGroup, ScoreItem, ScoreParams, ScoreResult
from tests.support.node_tiny_model import write_tiny_model

SHOTS = "".join(f"Question: what is {n} and then?\nAnswer: the {n} in an other\n\n" for n in range(9))
PARAMS = ScoreParams(
    groups=(
        ScoreGroup(
            prefix=SHOTS,
            items=tuple(
                ScoreItem(
                    suffix=f"Question: what is {n} on the {n * n}?\nAnswer:",
                    continuations=(" the one", " the other thing", " an", " the one then"),
                )
                for n in range(7)
            ),
        ),
        ScoreGroup(
            prefix="Subject: an other.\n\n",
            items=tuple(ScoreItem(suffix=f"{n}?\nAnswer:", continuations=(" A", " B", " C", " D")) for n in range(20)),
        ),
        ScoreGroup(items=(ScoreItem(suffix="", continuations=("alone", "the")),)),
        ScoreGroup(items=(ScoreItem(suffix="trailing space ", continuations=("one", "one", "two")),)),
        ScoreGroup(items=()),
    )
)
# F32 sums in another order: what remains is rounding.
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=[False, True], ids=["no-bos", "bos"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf", bos=request.param)
    with Model(path) as loaded:
        yield loaded


def score(model: Model, *, context_tokens: int, sequences: int, batch: int, outputs: int) -> ScoreResult:
    with Context(
        model, context_tokens=context_tokens, batch_tokens=batch, sequences=sequences, most_outputs=outputs,
        cache_f32=True,
    ) as context:  # fmt: skip
        scorer = Scorer(
            context, Tokenizer(model), context_tokens=context_tokens, sequences=sequences, most_outputs=outputs
        )
        return scorer.score(PARAMS, lambda _fraction, _message: None)


@pytest.fixture(scope="module")
def plain(model: Model) -> list[list[list[tuple[float, bool, int]]]]:
    """[group][item][continuation] (log-likelihood, greedy, input tokens): one pass each, nothing shared."""
    tokenizer = Tokenizer(model)
    with Context(model, context_tokens=1024, batch_tokens=1024, cache_f32=True) as context:

        def one(text: str, continuation: str) -> tuple[float, bool, int]:
            pair = tokenizer.pair(text, continuation)
            context.clear()
            context.decode(pair.inputs, range(len(pair.inputs)))
            total, greedy = 0.0, True
            for step, token in enumerate(pair.continuation):
                logits = context.logits(len(pair.context) - 1 + step).astype(np.float64)
                total += float(logits[token] - np.logaddexp.reduce(logits))
                greedy &= int(logits.argmax()) == token
            return total, greedy, len(pair.inputs)

        return [
            [[one(group.prefix + item.suffix, text) for text in item.continuations] for item in group.items]
            for group in PARAMS.groups
        ]


@pytest.mark.parametrize(
    ("context_tokens", "sequences", "batch", "outputs"),
    [(2048, 32, 512, 512), (1024, 8, 64, 8), (1024, 5, 512, 16)],
    ids=["wide", "small-batches", "few-sequences"],
)
def test_scores_equal_one_plain_pass_a_continuation(
    model: Model,
    plain: list[list[list[tuple[float, bool, int]]]],
    context_tokens: int,
    sequences: int,
    batch: int,
    outputs: int,
) -> None:
    result = score(model, context_tokens=context_tokens, sequences=sequences, batch=batch, outputs=outputs)
    for group, expected_group in zip(result.groups, plain, strict=True):
        for item, expected in zip(group, expected_group, strict=True):
            assert item.log_likelihoods == pytest.approx([value for value, _, _ in expected], abs=TOLERANCE)
            assert list(item.greedy) == [greedy for _, greedy, _ in expected]
            assert item.ledger.prompt + item.ledger.cached == sum(inputs for _, _, inputs in expected)
            assert item.start_utc_ns <= item.end_utc_ns
    assert result.ledger == sum((item.ledger for group in result.groups for item in group), TokenLedger())
    first = result.groups[0]
    assert first[0].ledger.prompt > 300 > 3 * first[1].ledger.prompt
    assert sum(item.ledger.prompt for item in first) < 0.12 * sum(n for i in plain[0] for *_, n in i)


def test_the_same_job_twice_gives_identical_bits(model: Model) -> None:
    once, again = (score(model, context_tokens=2048, sequences=16, batch=256, outputs=64) for _ in range(2))
    assert [i.log_likelihoods for g in once.groups for i in g] == [i.log_likelihoods for g in again.groups for i in g]


def test_the_evaluated_tokens_of_letter_answers(model: Model) -> None:
    """20 questions with letter answers: prefix once, each question once, no token for the letters themselves."""
    result = score(model, context_tokens=2048, sequences=32, batch=512, outputs=512)
    tokenizer = Tokenizer(model)
    group = PARAMS.groups[1]
    contexts = [tokenizer.encode(group.prefix + item.suffix) for item in group.items]
    shared = next(n for n, column in enumerate(zip(*contexts, strict=False)) if len(set(column)) > 1)
    expected = shared + sum(len(ids) - shared for ids in contexts)
    # " A" is a space and a letter for this vocabulary: the space is evaluated, once, for all four.
    assert sum(item.ledger.prompt for item in result.groups[1]) == expected + len(contexts)
