"""`ClusterLM`: the lm-eval model that lets the cluster answer: one call of `score`, one of `generate`, for all tasks.

Importing this module loads lm-eval (1.5 s) with its network access switched off.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from orchestrator.benchmarks.offline import go_offline

go_offline()
from lm_eval.api.model import LM  # noqa: E402

from orchestrator.benchmarks.grouping import Question, group_by_prefix  # noqa: E402
from shared.kernel.errors import ConfigurationError, DataError  # noqa: E402
from shared.kernel.records import TokenLedger  # noqa: E402
from shared.wire.node_jobs.workloads import (  # noqa: E402
    GeneratedText,
    GenerateItem,
    GenerateParams,
    GenerateResult,
    ItemScore,
    ScoreParams,
    ScoreResult,
)

Score = Callable[[ScoreParams], ScoreResult]
Generate = Callable[[GenerateParams], GenerateResult]
MAX_GENERATED = 256
"""Tokens of an answer where the task does not say; lm-eval's own default."""
DocKey = tuple[str, int]
"""lm-eval's task name and its number of the document within the evaluation."""


@dataclass(frozen=True)
class DocCost:
    """What one document cost: its tokens and the span in which they were evaluated."""

    ledger: TokenLedger
    start_utc_ns: int
    end_utc_ns: int


class ClusterLM(LM):  # type: ignore[misc]  # lm_eval ships no types
    """Answers from injected functions: `score` for log-likelihoods, grouped by prefix, `generate` for free text.

    Attributes:
        spans: What each call cost as a whole.
        costs: Ledger and times of each document. The prefix of a group is evaluated once; its tokens are in the ledger
            of the item for which the engine evaluated it.
    """

    def __init__(
        self, score: Score, subjects: Mapping[DocKey, str] | None = None, generate: Generate | None = None
    ) -> None:
        super().__init__()
        self._score = score
        self._generate = generate
        self._subjects = subjects or {}
        self.spans: list[DocCost] = []
        self.costs: dict[DocKey, DocCost] = {}

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Score every request (context, continuation); answers come in the order asked.

        Returns:
            (sum of log-probabilities in nats, continuation is the greedy one) for each request.

        Raises:
            DataError: the engine's answer has another shape than the question.
        """
        if not requests:
            return []
        keys: dict[tuple[DocKey, str], dict[str, int]] = {}
        wanted: list[tuple[tuple[DocKey, str], int]] = []
        for request in requests:
            context, continuation = _spaces_to_continuation(*request.args)
            key = ((request.task_name, request.doc_id), context)
            options = keys.setdefault(key, {})
            wanted.append((key, options.setdefault(continuation, len(options))))
        grouped = group_by_prefix(
            [
                Question(doc[0], self._subjects.get(doc, ""), context, tuple(options))
                for (doc, context), options in keys.items()
            ]
        )
        result = self._score(grouped.params)
        _check_shape(grouped.params, result)
        answers = {key: result.groups[group][item] for key, (group, item) in zip(keys, grouped.places, strict=True)}
        self.spans.append(_cost(result))
        self.costs |= _costs((doc, answer) for (doc, _), answer in answers.items())
        return [(answers[key].log_likelihoods[option], answers[key].greedy[option]) for key, option in wanted]

    def loglikelihood_rolling(self, requests: list[Any]) -> NoReturn:
        """Refuse: the score job has no perplexity of whole documents.

        Raises:
            ConfigurationError: always, naming the task.
        """
        raise _unsupported(requests, "perplexity of whole documents (loglikelihood_rolling)")

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Continue every context greedily until one of its stop strings; answers come in the order asked.

        The engine is asked in the order of the contexts, since it evaluates a beginning that two neighbours share once.

        Raises:
            ConfigurationError: nothing here can generate, or a task wants its answers sampled.
            DataError: the engine answered another number of requests.
        """
        if not requests:
            return []
        if self._generate is None:
            raise _unsupported(requests, "free generation (generate_until)")
        order = sorted(range(len(requests)), key=lambda at: str(requests[at].args[0]))
        result = self._generate(GenerateParams(items=tuple(_generate_item(requests[at]) for at in order)))
        if len(result.texts) != len(order):
            raise _wrong_shape("generate job")
        self.spans.append(_cost(result))
        docs = [(requests[at].task_name, requests[at].doc_id) for at in order]
        self.costs |= _costs(zip(docs, result.texts, strict=True))
        texts = {at: answer.text for at, answer in zip(order, result.texts, strict=True)}
        return [texts[at] for at in range(len(requests))]


def _generate_item(request: Any) -> GenerateItem:
    """Read lm-eval's generation arguments; of sampling only its absence can be had."""
    context, wanted = request.args
    if wanted.get("do_sample") and float(wanted.get("temperature", 1.0)) > 0:
        raise ConfigurationError(
            "the task wants its answers sampled; here they are greedy, so that they can be repeated",
            where=str(request.task_name), hint="set do_sample: false in the task's generation_kwargs",
        )  # fmt: skip
    until = wanted.get("until") or ()
    return GenerateItem(
        prompt=context, until=(until,) if isinstance(until, str) else tuple(until),
        max_tokens=int(wanted.get("max_gen_toks") or wanted.get("max_new_tokens") or MAX_GENERATED),
    )  # fmt: skip


def _spaces_to_continuation(context: str, continuation: str) -> tuple[str, str]:
    """Move trailing spaces of the context to the continuation, as lm-eval's TemplateLM._encode_pair does."""
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + continuation


def _check_shape(params: ScoreParams, result: ScoreResult) -> None:
    asked = [[len(item.continuations) for item in group.items] for group in params.groups]
    for answered in (
        [[len(item.log_likelihoods) for item in group] for group in result.groups],
        [[len(item.greedy) for item in group] for group in result.groups],
    ):
        if answered != asked:
            raise _wrong_shape("score job")


def _wrong_shape(where: str) -> DataError:
    return DataError(
        "the engine's answer does not have the shape of the questions", where=where,
        hint="orchestrator and node agent must be of the same version",
    )  # fmt: skip


def _cost(answer: ItemScore | GeneratedText | ScoreResult | GenerateResult) -> DocCost:
    return DocCost(answer.ledger, answer.start_utc_ns, answer.end_utc_ns)


def _costs(answers: Iterable[tuple[DocKey, ItemScore | GeneratedText]]) -> dict[DocKey, DocCost]:
    costs: dict[DocKey, DocCost] = {}
    for doc, answer in answers:
        cost = _cost(answer)
        if (before := costs.get(doc)) is not None:  # a task whose options are contexts has several items a question
            cost = DocCost(
                before.ledger + cost.ledger,
                min(before.start_utc_ns, cost.start_utc_ns),
                max(before.end_utc_ns, cost.end_utc_ns),
            )
        costs[doc] = cost
    return costs


def _unsupported(requests: list[Any], what: str) -> ConfigurationError:
    tasks = sorted({str(request.task_name) for request in requests})
    return ConfigurationError(
        f"the task needs {what}, which cannot be had here",
        where=", ".join(tasks),
        hint="choose a task whose output_type is multiple_choice, loglikelihood or generate_until",
    )
