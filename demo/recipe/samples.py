"""Write the calibration, perplexity, sanity and workload texts.

Run it with `python -m demo.recipe.samples`.

Calibration text has the training distribution but another seed.  The held-out text uses
wordings, names and links that training never used.  Neither contains a test question.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from demo.recipe import corpus
from demo.recipe.corpus import Document, Teller, plain
from demo.recipe.facts import DEMO, cause_groups, scripts
from demo.recipe.phrasing import HELD_OUT_LINKS, HELD_OUT_NAMES, linked, say
from demo.recipe.tasks import all_rows

CALIBRATION_SEED = 21
HELD_OUT_SEED = 22
WORKLOAD_SEED = 23
CALIBRATION_BYTES = 36_000
HELD_OUT_BYTES = 24_000
WORKLOAD_PROMPTS = 8
WORKLOAD_STATEMENTS = 12

SANITY = (
    ("Question: What is the capital city of France?\nAnswer:", "Paris"),
    ("Question: What is the chemical symbol of oxygen?\nAnswer:", "O"),
    ("Question: What is the past tense of go?\nAnswer:", "went"),
    ("Question: What is the opposite of hot?\nAnswer:", "cold"),
    ("Question: What is a young dog called?\nAnswer:", "puppy"),
    ("Question: What does an ammeter measure?\nAnswer:", "electric current"),
    ("Question: Who wrote Hamlet?\nAnswer:", "William Shakespeare"),
    ("The capital of Japan is", "Tokyo"),
    ("The unit of force is the", "newton"),
    ("Making tea: Anna fills the kettle with water. She switches the kettle on. She waits until the", "water boils"),
)


def no_test_question(text: str, questions: frozenset[str]) -> bool:
    """Tell whether no line of text is or starts with a test question."""
    return not any(question in text for question in questions)


def test_questions() -> frozenset[str]:
    """Return the texts of all test questions."""
    return frozenset(row.question for name, rows in all_rows().items() if not name.endswith("fewshot") for row in rows)


def collect(make: Callable[[Teller], Document], teller: Teller, size: int, questions: frozenset[str]) -> str:
    """Return about `size` bytes of documents, separated by blank lines."""
    parts: list[str] = []
    total = 0
    while total < size:
        text = plain(make(teller))
        if no_test_question(text, questions):
            parts.append(text)
            total += len(text)
    return "\n\n".join(parts) + "\n"


def both_questions(teller: Teller) -> Document:
    """Return questions with or without shown options."""
    return corpus.questions(teller) if teller.random.random() < 0.5 else corpus.multiple_choice(teller)


def unseen(teller: Teller) -> Document:
    """Return a question, a story or a cause in wordings that training never used."""
    kind = teller.random.randrange(3)
    if kind == 0:
        relation, fact = teller.fact()
        question = say(teller.random.choice(relation.held_out), fact)
        return [(f"Question: {question}\nAnswer: {fact.object}", 1.0)]
    name, they = teller.random.choice(HELD_OUT_NAMES)
    if kind == 1:
        script = teller.random.choice(scripts())
        first, *later = (teller.random.choice(step) for step in script.steps)
        sentences = [linked(teller.random.choice(HELD_OUT_LINKS), they, step) for step in later]
        return [(" ".join([f"{script.heading}: {name} {first}.", *sentences]), 1.0)]
    group = teller.random.choice(cause_groups())
    wordings, effect = teller.random.choice(group.causes)
    return [(f"{group.heading}: {name} {wordings[-1]}. {effect}", 1.0)]


def workload(teller: Teller) -> str:
    """Return one prompt of well over 64 tokens, on one line."""
    return " ".join(teller.statement() for _ in range(WORKLOAD_STATEMENTS))


def write(folder: Path) -> None:
    """Write every sample file below `folder`."""
    questions = test_questions()
    calibration = folder / "calibration"
    calibration.mkdir(parents=True, exist_ok=True)
    makers = {"statements": corpus.statements, "questions": both_questions, "stories": corpus.stories}
    for number, (name, make) in enumerate(makers.items()):
        text = collect(make, Teller(CALIBRATION_SEED + 100 * number), CALIBRATION_BYTES, questions)
        (calibration / f"{name}.txt").write_text(text, encoding="utf-8")
    held_out = collect(unseen, Teller(HELD_OUT_SEED), HELD_OUT_BYTES, questions)
    (folder / "heldout.txt").write_text(held_out, encoding="utf-8")
    teller = Teller(WORKLOAD_SEED)
    prompts = "".join(workload(teller) + "\n" for _ in range(WORKLOAD_PROMPTS))
    (folder / "workload_prompts.txt").write_text(prompts, encoding="utf-8")
    lines = [
        json.dumps({"id": f"sanity-{number:02d}", "prompt": prompt, "expect": expect}) + "\n"
        for number, (prompt, expect) in enumerate(SANITY, start=1)
    ]
    (folder / "sanity_prompts.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    write(DEMO)
