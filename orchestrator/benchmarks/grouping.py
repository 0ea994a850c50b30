"""Groups questions by the few-shot prefix that they share, so that the engine evaluates it once. Pure text work.

The cut between prefix and suffix must not change the tokens. A tokenizer of the BPE family never joins a line break
with a following letter or digit, so prefixes are cut only after a line break that a non-space character follows. The
engine still tokenises prefix, suffix and continuation together (shared.wire.node_jobs.workloads.ScoreGroup).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.wire.node_jobs.workloads import ScoreGroup, ScoreItem, ScoreParams


@dataclass(frozen=True)
class Question:
    """One context with its continuations; `task` and `subject` say which few-shot prefix it may share."""

    task: str
    subject: str
    context: str
    continuations: tuple[str, ...]


@dataclass(frozen=True)
class Grouped:
    """What is sent, and where each question went: `places[i]` is (group, item) of question i."""

    params: ScoreParams
    places: tuple[tuple[int, int], ...]


def group_by_prefix(questions: Sequence[Question]) -> Grouped:
    """Return `questions` as groups by shared prefix, one task after the other.

    Within a task the questions form one group or one a subject, whichever leaves fewer characters to evaluate.
    """
    by_task: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        by_task.setdefault(question.task, []).append(index)
    groups: list[ScoreGroup] = []
    places: dict[int, tuple[int, int]] = {}
    for members in by_task.values():
        for group in _cheaper_partition(questions, members):
            prefix = shared_prefix([questions[i].context for i in group])
            for item, i in enumerate(group):
                places[i] = (len(groups), item)
            groups.append(
                ScoreGroup(
                    prefix=prefix,
                    items=tuple(
                        ScoreItem(suffix=questions[i].context[len(prefix) :], continuations=questions[i].continuations)
                        for i in group
                    ),
                )
            )
    return Grouped(ScoreParams(groups=tuple(groups)), tuple(places[i] for i in range(len(questions))))


def shared_prefix(contexts: Sequence[str]) -> str:
    """Return the longest common prefix of all contexts that ends where a cut cannot change the tokens; maybe empty."""
    low, high = min(contexts), max(contexts)  # whatever these two share, all between them share
    end = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    common = low[:end]
    while (end := common.rfind("\n", 0, end)) >= 0:
        if all(len(text) > end + 1 and not text[end + 1].isspace() for text in contexts):
            return common[: end + 1]
    return ""


def _cheaper_partition(questions: Sequence[Question], members: list[int]) -> list[list[int]]:
    by_subject: dict[str, list[int]] = {}
    for i in members:
        by_subject.setdefault(questions[i].subject, []).append(i)
    split = list(by_subject.values())
    whole = [members]
    return min((whole, split), key=lambda groups: sum(_saved(questions, group) for group in groups) * -1)


def _saved(questions: Sequence[Question], group: list[int]) -> int:
    """Characters that need no evaluation because the group's prefix is shared."""
    return len(shared_prefix([questions[i].context for i in group])) * (len(group) - 1)
