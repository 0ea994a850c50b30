"""`ClusterLM`: the lm-eval model that lets the cluster score: one call of `score` answers a whole evaluation.

Importing this module loads lm-eval (1.5 s) with its network access switched off.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from orchestrator.benchmarks.offline import go_offline

go_offline()
from lm_eval.api.model import LM  # noqa: E402

from orchestrator.benchmarks.grouping import Question, group_by_prefix  # noqa: E402
from shared.errors import ConfigurationError, DataError  # noqa: E402
from shared.node_jobs.workloads import ItemScore, ScoreParams, ScoreResult  # noqa: E402
from shared.records import TokenLedger  # noqa: E402

Score = Callable[[ScoreParams], ScoreResult]
DocKey = tuple[str, int]
"""lm-eval's task name and its number of the document within the evaluation."""


@dataclass(frozen=True)
class DocCost:
    """What one document cost: its tokens and the span in which they were evaluated."""

    ledger: TokenLedger
    start_utc_ns: int
    end_utc_ns: int


class ClusterLM(LM):  # type: ignore[misc]  # lm_eval ships no types
    """Log-likelihoods from an injected `score` function, asked once with all requests grouped by shared prefix.

    Attributes:
        result: The engine's answer to the last `loglikelihood`, None before.
        costs: Ledger and times of each document of the last `loglikelihood`. The prefix of a group is evaluated once;
            its tokens are in the ledger of the item for which the engine evaluated it.
    """

    def __init__(self, score: Score, subjects: Mapping[DocKey, str] | None = None) -> None:
        super().__init__()
        self._score = score
        self._subjects = subjects or {}
        self.result: ScoreResult | None = None
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
        answers = {
            key: result.groups[group][item] for key, (group, item) in zip(keys, grouped.places, strict=True)
        }
        self.result = result
        self.costs = _costs(answers)
        return [(answers[key].log_likelihoods[option], answers[key].greedy[option]) for key, option in wanted]

    def loglikelihood_rolling(self, requests: list[Any]) -> NoReturn:
        """Refuse: the score job has no perplexity of whole documents.

        Raises:
            ConfigurationError: always, naming the task.
        """
        raise _unsupported(requests, "perplexity of whole documents (loglikelihood_rolling)")

    def generate_until(self, requests: list[Any]) -> NoReturn:
        """Refuse: the score job reads log-likelihoods, it generates nothing.

        Raises:
            ConfigurationError: always, naming the task.
        """
        raise _unsupported(requests, "free generation (generate_until)")


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
            raise DataError(
                "the engine's answer does not have the shape of the questions",
                where="score job",
                hint="orchestrator and node agent must be of the same version",
            )


def _costs(answers: Mapping[tuple[DocKey, str], ItemScore]) -> dict[DocKey, DocCost]:
    costs: dict[DocKey, DocCost] = {}
    for (doc, _context), answer in answers.items():
        cost = DocCost(answer.ledger, answer.start_utc_ns, answer.end_utc_ns)
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
        f"the task needs {what}; this cluster scores continuations by log-likelihood",
        where=", ".join(tasks),
        hint="choose a task whose output_type is multiple_choice or loglikelihood",
    )
