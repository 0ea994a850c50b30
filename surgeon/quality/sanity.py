"""Is the model still a language model? Sanity prompts, degenerate answers, perplexity.

The prompts are an editable file of JSON lines: {"id": "...", "prompt": "...", "expect": "..."}; `id` and `expect` are
optional. `expect` is a text, or a list of texts of which one has to be in the answer, whatever the case.

Not here: the verdict that compares a variant with its baseline (`surgeon.quality.gate`).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import Field, field_validator

from shared.kernel.defects import reason_of
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.progress import Progress
from shared.kernel.records import Record
from shared.kernel.regular_files import RECORDS_BYTES, SETTINGS_BYTES, read_text
from shared.llama import model as llama
from shared.wire.surgeon_jobs import PromptCompletion

ANSWER_TOKENS: Final = 32
_LONGEST_PERIOD: Final = 8
_REPEATS: Final = 4
_WINDOW_TOKENS: Final = 256


class SanityPrompt(Record):
    """One line of the prompts' file."""

    id: str = ""
    prompt: str = Field(min_length=1)
    expect: tuple[str, ...] = ()

    @field_validator("expect", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class Evaluation(Record):
    """What was seen of one model."""

    perplexity: float | None = None
    n_tokens: int = 0
    answers: tuple[PromptCompletion, ...] = ()

    @property
    def n_degenerate(self) -> int:
        """Answers that are no text at all: empty, not UTF-8, or one piece over and over."""
        return sum(answer.reason.startswith("degenerate") for answer in self.answers)


def load_prompts(path: Path) -> list[SanityPrompt]:
    """Read the prompts' file.

    Raises:
        ConfigurationError: not there, or a line that does not fit, named by its number.
    """
    try:
        lines = read_text(path, SETTINGS_BYTES).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the sanity prompts: {error}", where=str(path)) from error
    prompts: list[SanityPrompt] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prompts.append(SanityPrompt.model_validate(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(
                f"not a sanity prompt: {reason_of(error)}",
                where=f"{path}:{number}",
                hint='{"prompt": "...", "expect": "..."}',
            ) from error
    return prompts


def judge(prompt: SanityPrompt, tokens: Sequence[int], answer: bytes) -> PromptCompletion:
    """Say whether an answer is text, and the expected one."""
    text = answer.decode("utf-8", "replace")
    reason = degenerate_reason(tokens, answer)
    if not reason and prompt.expect and not any(part.casefold() in text.casefold() for part in prompt.expect):
        reason = f"expected one of: {', '.join(prompt.expect)}"
    return PromptCompletion(prompt=prompt.prompt, answer=text, ok=not reason, reason=reason)


def degenerate_reason(tokens: Sequence[int], answer: bytes) -> str:
    """Return why an answer is no text, or nothing.

    A loop is a piece of at most 8 tokens that makes up the whole second half of the answer, at least 4 times over.
    """
    if not answer.strip():
        return "degenerate: empty"
    try:
        answer.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(answer) - 3:  # a cut character at the very end is only the end of the budget
            return "degenerate: not UTF-8"
    half = list(tokens[len(tokens) // 2 :])
    for period in range(1, _LONGEST_PERIOD + 1):
        if len(half) >= period * _REPEATS and all(half[i] == half[i - period] for i in range(period, len(half))):
            return f"degenerate: repeats {period} token(s)"
    return ""


def evaluate(
    model_path: Path,
    *,
    heldout: Path | None,
    prompts: Path | None,
    threads: int = 1,
    max_tokens: int = 8192,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Measure perplexity on the held-out text and answer the sanity prompts, greedily.

    Raises:
        ConfigurationError: a file is missing or does not fit.
        DataError: llama.cpp refuses the model.
    """
    publish = on_progress or (lambda _fraction, _message: None)
    questions = load_prompts(prompts) if prompts is not None else []
    text = ""
    if heldout is not None:
        try:
            text = read_text(heldout, RECORDS_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read the held-out text: {error}", where=str(heldout)) from error
    with (
        llama.Model(model_path) as model,
        llama.Context(model, context_tokens=_WINDOW_TOKENS, batch_tokens=_WINDOW_TOKENS, threads=threads) as context,
    ):
        perplexity, n_tokens = None, 0
        if text:
            perplexity, n_tokens = _perplexity(model, context, model.tokenize(text)[:max_tokens], publish)
        answers = []
        for number, question in enumerate(questions):
            answers.append(judge(question, *_answer(model, context, question.prompt)))
            publish(0.5 + 0.5 * (number + 1) / len(questions), question.prompt[:40])
    return Evaluation(perplexity=perplexity, n_tokens=n_tokens, answers=tuple(answers))


def _perplexity(
    model: llama.Model, context: llama.Context, tokens: list[int], publish: Progress
) -> tuple[float | None, int]:
    """Return exp of the mean negative log-likelihood over all tokens but the first of each window, and their number."""
    total, count = 0.0, 0
    for begin in range(0, len(tokens) - 1, _WINDOW_TOKENS):
        window = tokens[begin : begin + _WINDOW_TOKENS]
        context.clear()
        context.decode(window, range(len(window)))
        for row in range(len(window) - 1):
            logits = context.logits(row).astype(np.float64)
            largest = float(logits.max())
            total += largest + float(np.log(np.exp(logits - largest).sum())) - float(logits[window[row + 1]])
            count += 1
        publish(0.5 * min(1.0, (begin + len(window)) / len(tokens)), "perplexity")
    if count == 0:
        return None, 0
    if not np.isfinite(total):
        raise DataError("the model's logits are not finite", where=str(model.path))
    return float(np.exp(min(total / count, 700.0))), count


def _answer(model: llama.Model, context: llama.Context, prompt: str) -> tuple[list[int], bytes]:
    tokens = model.tokenize(prompt)[-(_WINDOW_TOKENS - ANSWER_TOKENS) :]
    context.clear()
    context.decode(tokens, range(len(tokens)), outputs=[False] * (len(tokens) - 1) + [True])
    answer: list[int] = []
    row = len(tokens) - 1
    while len(answer) < ANSWER_TOKENS:
        token = int(np.argmax(context.logits(row)))
        if model.is_end(token):
            break
        answer.append(token)
        context.decode([token], [len(tokens) + len(answer) - 1])
        row = 0
    return answer, b"".join(model.piece(token) for token in answer)
