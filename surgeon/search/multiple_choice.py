"""Multiple-choice questions scored by log-likelihood: accuracy of a model while experts are masked or gates changed.

The searches' fitness and the tables in docs are made with this. It is not the benchmark of a campaign, which is
lm-eval's. A file is JSON lines with `question`, `choices` and `answer`; prompts come from a template.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from shared.kernel.defects import reason_of
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.records import Record
from shared.kernel.regular_files import RECORDS_BYTES, read_text
from shared.llama import model as llama

QUESTION_TEMPLATE: Final = "Question: {question}\nAnswer:"
_SEQUENCES: Final = 64
_BATCH_TOKENS: Final = 2048


class Question(Record):
    """One question; other fields of a file's line are ignored."""

    question: str = Field(min_length=1)
    choices: tuple[str, ...] = Field(min_length=2)
    answer: int = Field(ge=0)

    @model_validator(mode="after")
    def _answer_exists(self) -> "Question":
        if self.answer >= len(self.choices):
            raise ValueError(f"answer {self.answer} of {len(self.choices)} choices")
        return self


def load_questions(path: Path) -> list[Question]:
    """Read a file of questions.

    Raises:
        ConfigurationError: not there, or a line that does not fit, named by its number.
    """
    questions: list[Question] = []
    try:
        lines = read_text(path, RECORDS_BYTES).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the questions: {error}", where=str(path)) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            known = data
            if isinstance(data, dict):
                known = {name: data[name] for name in ("question", "choices", "answer") if name in data}
            questions.append(Question.model_validate(known))
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"not a question: {reason_of(error)}", where=f"{path}:{number}") from error
    if not questions:
        raise ConfigurationError("no question in it", where=str(path))
    return questions


@dataclass(frozen=True)
class Score:
    """Result of one evaluation."""

    accuracy: float
    margin: float
    """Mean of log p(right) - log p(best wrong), length-normalised; breaks ties between equal accuracies."""
    correct: tuple[bool, ...]


@dataclass(frozen=True)
class _Tokens:
    prompt: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...]
    answer: int


class MultipleChoiceScorer:
    """Scores a fixed set of questions again and again on one loaded model."""

    def __init__(
        self,
        model: llama.Model,
        questions: Sequence[Question],
        *,
        template: str = QUESTION_TEMPLATE,
        threads: int = 1,
        cache_f32: bool = False,
        on_tensor: llama.EvalCallback | None = None,
    ) -> None:
        """Tokenise the questions and make the context; `cache_f32` as in `shared.llama.model.Context`.

        Raises:
            ConfigurationError: a question is longer than fits.
        """
        self._items = [_tokenise(model, question, template) for question in questions]
        longest = max(len(item.prompt) + sum(map(len, item.choices)) for item in self._items)
        if longest > _BATCH_TOKENS:
            raise ConfigurationError(f"a question takes {longest} tokens, {_BATCH_TOKENS} fit")
        self._context = llama.Context(
            model, context_tokens=2 * _BATCH_TOKENS, batch_tokens=_BATCH_TOKENS, sequences=_SEQUENCES,
            threads=threads, cache_f32=cache_f32, on_tensor=on_tensor,
        )  # fmt: skip

    def close(self) -> None:
        """Free the context."""
        self._context.close()

    def score(self) -> Score:
        """Return accuracy by length-normalised log-likelihood (lm-eval's acc_norm, per character).

        Raises:
            DataError: the model answers what is no number.
        """
        correct: list[bool] = []
        margins: list[float] = []
        for group in self._groups():
            for item, values in zip(group, self._log_likelihoods(group), strict=True):
                if any(map(math.isnan, values)):
                    raise DataError("the model's log-likelihoods are no numbers", hint="its weights may be damaged")
                normalised = [value / length for value, length in zip(values, item.lengths, strict=True)]
                right = normalised.pop(item.answer)
                correct.append(right > max(normalised))
                margins.append(right - max(normalised))
        return Score(sum(correct) / len(correct), float(np.mean(margins)), tuple(correct))

    def _groups(self) -> list[list[_Tokens]]:
        groups: list[list[_Tokens]] = [[]]
        tokens = sequences = 0
        for item in self._items:
            size = len(item.prompt) + sum(map(len, item.choices))
            if groups[-1] and (tokens + size > _BATCH_TOKENS or sequences + len(item.choices) > _SEQUENCES):
                groups.append([])
                tokens = sequences = 0
            groups[-1].append(item)
            tokens += size
            sequences += len(item.choices)
        return groups

    def _log_likelihoods(self, group: list[_Tokens]) -> list[list[float]]:
        """Evaluate the prompts once, copy each to its choices' sequences, evaluate those together."""
        context = self._context
        context.clear()
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[int] = []
        outputs: list[bool] = []
        first: list[int] = []
        last_row: list[int] = []
        for item in group:
            first.append(first[-1] + len(group[len(first) - 1].choices) if first else 0)
            tokens += item.prompt
            positions += range(len(item.prompt))
            sequences += [first[-1]] * len(item.prompt)
            outputs += [False] * (len(item.prompt) - 1) + [True]
            last_row.append(len(tokens) - 1)
        context.decode(tokens, positions, sequences, outputs)
        starts = [_log_softmax(context.logits(row)) for row in last_row]
        result = [
            [float(start[choice[0]]) for choice in item.choices] for item, start in zip(group, starts, strict=True)
        ]
        rows: list[tuple[int, int, int]] = []
        tokens, positions, sequences = [], [], []
        for number, item in enumerate(group):
            for place, choice in enumerate(item.choices):
                if place:
                    context.copy_sequence(first[number], first[number] + place)
                for at, token in enumerate(choice[:-1]):
                    rows.append((number, place, choice[at + 1]))
                    tokens.append(token)
                    positions.append(len(item.prompt) + at)
                    sequences.append(first[number] + place)
        if tokens:
            context.decode(tokens, positions, sequences)
        for row, (number, place, following) in enumerate(rows):
            result[number][place] += float(_log_softmax(context.logits(row))[following])
        return result


def _tokenise(model: llama.Model, question: Question, template: str) -> _Tokens:
    prompt = template.format(question=question.question)
    head = model.tokenize(prompt)
    choices = []
    for choice in question.choices:
        whole = model.tokenize(f"{prompt} {choice}")
        # The boundary is where lm-eval puts it: after as many tokens as the prompt alone has.
        choices.append(tuple(whole[len(head) :]))
    if not head or not all(choices):
        raise ConfigurationError("a prompt or choice without tokens", where=question.question[:60])
    return _Tokens(tuple(head), tuple(choices), tuple(len(choice) for choice in question.choices), question.answer)


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    values = logits.astype(np.float64)
    largest = float(values.max())
    return np.asarray(values - largest - np.log(np.exp(values - largest).sum()))
