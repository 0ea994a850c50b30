"""ClusterLM: one call, answers in the order asked, the same texts as lm-eval would score."""

import pytest
from lm_eval.api.instance import Instance

from orchestrator.benchmarks.cluster_lm import ClusterLM
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import TokenLedger
from shared.wire.node_jobs.workloads import GeneratedText, GenerateParams, GenerateResult, ScoreParams, ScoreResult
from tests.support.benchmarks_oracle import OracleEngine, oracle


def _request(context: str, continuation: str, *, task: str = "t", doc: int = 0) -> Instance:
    return Instance("loglikelihood", {}, (context, continuation), 0, (task, doc, 1))


def test_answers_come_in_the_order_asked_from_one_call() -> None:
    engine = OracleEngine()
    requests = [
        _request(f"shots {task}\n\nquestion {doc}?", f" option {option}", task=task, doc=doc)
        for option in range(3)
        for doc in range(4)
        for task in ("t", "u")
    ]
    answers = ClusterLM(engine).loglikelihood(requests)
    assert answers == [oracle(*request.args) for request in requests]
    assert len(engine.calls) == 1
    groups = engine.calls[0].groups
    assert [group.prefix for group in groups] == ["shots t\n\n", "shots u\n\n"]
    assert all(len(item.continuations) == 3 for group in groups for item in group.items)


def test_a_repeated_option_is_scored_once() -> None:
    engine = OracleEngine()
    answers = ClusterLM(engine).loglikelihood([_request("q", " a"), _request("q", " b"), _request("q", " a")])
    assert answers[0] == answers[2] != answers[1]
    assert engine.calls[0].groups[0].items[0].continuations == (" a", " b")


def test_trailing_spaces_belong_to_the_continuation() -> None:
    engine = OracleEngine()
    assert ClusterLM(engine).loglikelihood([_request("The answer is  ", "A")]) == [oracle("The answer is", "  A")]


def test_options_as_contexts_add_up_to_one_question() -> None:
    lm = ClusterLM(OracleEngine())
    lm.loglikelihood([_request("He ran.", " Then"), _request("She walked.", " Then")])
    assert lm.costs["t", 0].ledger == TokenLedger(prompt=len("He ran.She walked."), scored=2)
    assert (lm.costs["t", 0].start_utc_ns, lm.costs["t", 0].end_utc_ns) == (1_000, 1_020)


@pytest.mark.parametrize("method", ["loglikelihood_rolling", "generate_until"])
def test_what_cannot_be_scored_is_refused_by_name(method: str) -> None:
    with pytest.raises(ConfigurationError, match="wikitext"):
        getattr(ClusterLM(OracleEngine()), method)([_request("a", "b", task="wikitext")])


def test_an_answer_of_another_shape_is_refused() -> None:
    def short(params: ScoreParams) -> ScoreResult:
        return ScoreResult(start_utc_ns=1, end_utc_ns=2, ledger=TokenLedger(), groups=((),))

    with pytest.raises(DataError, match="shape"):
        ClusterLM(short).loglikelihood([_request("a", "b")])


def _written(params: GenerateParams) -> GenerateResult:
    """Answer every prompt with itself backwards."""
    texts = tuple(
        GeneratedText(
            text=item.prompt[::-1], stopped="until", ledger=TokenLedger(generated=item.max_tokens), start_utc_ns=number,
            end_utc_ns=number + 1,
        )
        for number, item in enumerate(params.items)
    )  # fmt: skip
    return GenerateResult(start_utc_ns=0, end_utc_ns=9, ledger=TokenLedger(generated=1), texts=texts)


def test_texts_come_in_the_order_asked_and_neighbours_share_their_beginning() -> None:
    asked: list[GenerateParams] = []

    def write(params: GenerateParams) -> GenerateResult:
        asked.append(params)
        return _written(params)

    prompts = [f"shots {task} question {doc}?" for doc in range(3) for task in ("u", "t")]
    wanted = {"until": ["\n", "."], "max_gen_toks": 7, "do_sample": False, "temperature": 0.0}
    requests = [Instance("generate_until", {}, (text, wanted), 0, ("t", doc, 1)) for doc, text in enumerate(prompts)]
    lm = ClusterLM(OracleEngine(), generate=write)
    assert lm.generate_until(requests) == [text[::-1] for text in prompts]
    assert [item.prompt for item in asked[0].items] == sorted(prompts) and len(asked) == 1
    assert {(item.until, item.max_tokens) for item in asked[0].items} == {(("\n", "."), 7)}
    assert lm.costs["t", 1].start_utc_ns == 0 and lm.costs["t", 4].ledger.generated == 7
    sampled = Instance("generate_until", {}, ("q", {"do_sample": True, "temperature": 0.8}), 0, ("drawn", 0, 1))
    with pytest.raises(ConfigurationError, match=r"drawn.*sampled"):
        lm.generate_until([sampled])
