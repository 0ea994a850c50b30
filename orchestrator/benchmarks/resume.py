"""Long benchmark passes that survive a stop: answers are kept on disk and only what is missing is asked again.

For accuracy alone. A measured `score` window is never resumed (docs/epi.md): its energy belongs to one undisturbed
span, so a campaign starts the attempt anew. A full MMLU pass on a small cluster takes days: there this belongs.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from orchestrator.benchmarks.cluster_lm import Generate, Score
from shared.files.kept_lines import KeptLines
from shared.kernel.defects import first_defect
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import Record, TokenLedger
from shared.wire.node_jobs.workloads import (
    GeneratedText,
    GenerateItem,
    GenerateParams,
    GenerateResult,
    ItemScore,
    ScoreGroup,
    ScoreItem,
    ScoreParams,
    ScoreResult,
)

_Place = tuple[int, int]
A = TypeVar("A", ItemScore, GeneratedText)


class _Answer(Record):
    """One answered question; `key` is the hash of its whole text."""

    key: str
    answer: ItemScore | GeneratedText


class ResumableScore:
    """A `score` function that asks in jobs of limited size and keeps every answer; its `generate` does likewise.

    Args:
        score: Asks the engine.
        generate: Asks the engine for free text; needed only for tasks that are answered so.
        path: Append-only JSON Lines file of the answers.
        identity: What the answers depend on beside the questions: model hash, engine build, settings. A file of
            another identity is refused.
        questions_per_job: Answers become durable job by job. Each job evaluates its groups' prefixes again.

    Attributes:
        reused: Questions of all calls that were answered before.
        spans: (start, end) in UTC ns of each job.

    Raises:
        ConfigurationError: the file holds the answers of another model or engine.
        DataError: the file is damaged elsewhere than in its last line.
    """

    def __init__(
        self, score: Score, path: Path, *, identity: str, questions_per_job: int = 200, generate: Generate | None = None
    ) -> None:
        self._score = score
        self._generate = generate
        self._path = path
        self._questions_per_job = questions_per_job
        self._file = KeptLines(path, identity)
        self._answers = _read(self._file, path, identity)
        self.reused = 0
        self.spans: list[tuple[int, int]] = []

    @property
    def n_kept(self) -> int:
        """Answers on disk."""
        return len(self._answers)

    def __call__(self, params: ScoreParams) -> ScoreResult:
        """Answer all questions of `params`; those on disk are not asked again.

        Times of the result run from the first job to the last, those of earlier sessions included in the items.
        """
        keys = {
            (g, i): _key(group.prefix, item)
            for g, group in enumerate(params.groups)
            for i, item in enumerate(group.items)
        }
        missing = [place for place, key in keys.items() if key not in self._answers]
        self.reused += len(keys) - len(missing)
        for places in _jobs(missing, self._questions_per_job):
            job, order = _job(params, places)
            result = self._score(job)
            answered = [item for group in result.groups for item in group]
            if len(answered) != len(order):
                raise DataError("the engine's answer does not have the shape of the questions", where="score job")
            new = [_Answer(key=keys[place], answer=item) for place, item in zip(order, answered, strict=True)]
            self._append(new)
            self.spans.append((result.start_utc_ns, result.end_utc_ns))
        groups = tuple(
            tuple(self._kept(ItemScore, keys[g, i]) for i in range(len(group.items)))
            for g, group in enumerate(params.groups)
        )
        return ScoreResult(**_whole([item for group in groups for item in group]), groups=groups)

    def generate(self, params: GenerateParams) -> GenerateResult:
        """Have all texts of `params` written; those on disk are not asked again. Times as for scores."""
        if self._generate is None:
            raise ConfigurationError("nothing here can write free text", where="benchmark suite")
        keys = [_key_of_text(item) for item in params.items]
        missing = [at for at, key in enumerate(keys) if key not in self._answers]
        self.reused += len(keys) - len(missing)
        for start in range(0, len(missing), self._questions_per_job):
            job = missing[start : start + self._questions_per_job]
            result = self._generate(GenerateParams(items=tuple(params.items[at] for at in job)))
            if len(result.texts) != len(job):
                raise DataError("the engine's answer does not have the shape of the questions", where="generate job")
            self._append([_Answer(key=keys[at], answer=text) for at, text in zip(job, result.texts, strict=True)])
            self.spans.append((result.start_utc_ns, result.end_utc_ns))
        texts = tuple(self._kept(GeneratedText, key) for key in keys)
        return GenerateResult(**_whole(texts), texts=texts)

    def _kept(self, kind: type[A], key: str) -> A:
        answer = self._answers[key]
        if not isinstance(answer, kind):
            raise DataError("a kept answer is of another kind than its question", where=str(self._path))
        return answer

    def _append(self, answers: list[_Answer]) -> None:
        self._file.append(answer.model_dump_json() for answer in answers)
        self._answers.update({answer.key: answer.answer for answer in answers})


def _whole(answers: Sequence[ItemScore | GeneratedText]) -> dict[str, Any]:
    """Return the span of all answers and the sum of their ledgers."""
    return {
        "start_utc_ns": min((answer.start_utc_ns for answer in answers), default=0),
        "end_utc_ns": max((answer.end_utc_ns for answer in answers), default=0),
        "ledger": sum((answer.ledger for answer in answers), TokenLedger()),
    }


def _read(file: KeptLines, path: Path, identity: str) -> dict[str, ItemScore | GeneratedText]:
    if file.identity != identity:
        raise ConfigurationError(
            "the kept answers are of another model, engine or setting", where=str(path), hint="give another file"
        )
    try:
        answers = [_Answer.model_validate_json(line) for line in file.lines]
    except ValidationError as error:
        raise DataError(
            f"the file of kept answers is damaged: {first_defect(error)}", where=str(path),
            hint="remove it to ask anew",
        ) from error  # fmt: skip
    return {answer.key: answer.answer for answer in answers}


def _key(prefix: str, item: ScoreItem) -> str:
    text = json.dumps([prefix + item.suffix, item.continuations], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _key_of_text(item: GenerateItem) -> str:
    text = json.dumps([item.prompt, item.until, item.max_tokens], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _jobs(places: list[_Place], size: int) -> Iterator[list[_Place]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _job(params: ScoreParams, places: list[_Place]) -> tuple[ScoreParams, list[_Place]]:
    by_group: dict[int, list[_Place]] = {}
    for place in places:
        by_group.setdefault(place[0], []).append(place)
    groups = tuple(
        ScoreGroup(prefix=params.groups[g].prefix, items=tuple(params.groups[g].items[i] for _, i in members))
        for g, members in by_group.items()
    )
    return ScoreParams(groups=groups), [place for members in by_group.values() for place in members]
