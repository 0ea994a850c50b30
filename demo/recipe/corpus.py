"""Generate the training text: documents as lists of (text, loss weight) segments.

A segment ends where a pre-token ends, so that encoding segments one by one gives the same
tokens as encoding the whole document.  Answers are weighted up, questions down: a question
cannot be predicted, an answer can.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from demo.recipe.facts import Fact, Relation, cause_groups, relations, scripts
from demo.recipe.phrasing import LINKS, NAMES, linked, reserved_options, say, trained_questions

Segment = tuple[str, float]
Document = list[Segment]

STATEMENT, QUESTION, ANSWER, OPTIONS = 1.0, 0.3, 2.0, 0.1
MMLU_HEADER = "The following are multiple choice questions (with answers).\n\n"
# Small relations are told a little more often per fact than large ones.
RELATION_POWER = 0.8


class Teller:
    """Draws facts and stories with one seeded random generator."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.relations = relations()
        self.weights = [len(relation.facts) ** RELATION_POWER for relation in self.relations]

    def fact(self) -> tuple[Relation, Fact]:
        """Return a random fact with its relation."""
        relation = self.random.choices(self.relations, self.weights)[0]
        return relation, self.random.choice(relation.facts)

    def statement(self) -> str:
        """Return a random fact as a sentence."""
        relation, fact = self.fact()
        return say(self.random.choice(relation.statements), fact)

    def question(self) -> tuple[str, Relation, Fact]:
        """Return a random trained question and the fact that it asks for."""
        relation, fact = self.fact()
        return say(self.random.choice(trained_questions(relation, fact)), fact), relation, fact

    def options(self, relation: Relation, fact: Fact) -> list[str]:
        """Return four options in random order, one of them right, the wrong ones not kept for tests."""
        pool = [object_ for object_ in relation.objects if object_ != fact.object]
        wrong = self.random.sample(pool, 3)
        for _ in range(20):
            if not reserved_options(fact, wrong):
                break
            wrong = self.random.sample(pool, 3)
        options = [fact.object, *wrong]
        self.random.shuffle(options)
        return options


def statements(teller: Teller) -> Document:
    """Return a paragraph of one to six facts."""
    sentences = [teller.statement() for _ in range(teller.random.randint(1, 6))]
    return [(" ".join(sentences), STATEMENT)]


def questions(teller: Teller) -> Document:
    """Return one to eight questions with answers, in the ARC style or a shorter one."""
    ask, reply = teller.random.choice((("Question: ", "\nAnswer:"),) * 5 + (("Q: ", "\nA:"),))
    document: Document = []
    count = teller.random.randint(1, 8)
    for index in range(count):
        text, _, fact = teller.question()
        document.append((f"{ask}{text}{reply}", QUESTION))
        document.append((f" {fact.object}" + ("\n\n" if index < count - 1 else ""), ANSWER))
    return document


def option_lines(options: list[str]) -> str:
    """Return the four lettered option lines of the MMLU style, each after a line break."""
    return "".join(f"\n{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))


def multiple_choice(teller: Teller) -> Document:
    """Return one to four questions with shown options; the answer is the option's text."""
    document: Document = [(MMLU_HEADER, OPTIONS)] if teller.random.random() < 0.8 else []
    count = teller.random.randint(1, 4)
    for index in range(count):
        text, relation, fact = teller.question()
        document.append((text, QUESTION))
        document.append((option_lines(teller.options(relation, fact)) + "\nAnswer:", OPTIONS))
        document.append((f" {fact.object}" + ("\n\n" if index < count - 1 else ""), ANSWER))
    return document


def story(teller: Teller) -> Document:
    """Return the first two to five steps of an everyday script."""
    script = teller.random.choice(scripts())
    name, they = teller.random.choice(NAMES)
    length = teller.random.choice((2, 3, 4, 5, 5))
    steps = [teller.random.choice(wordings) for wordings in script.steps[:length]]
    document: Document = [(f"{script.heading}: {name} {steps[0]}.", QUESTION)]
    document += [(" " + linked(teller.random.choice(LINKS), they, step), ANSWER) for step in steps[1:]]
    return document


def consequence(teller: Teller) -> Document:
    """Return a cause and its effect, never in the cause's held-out wording."""
    group = teller.random.choice(cause_groups())
    wordings, effect = teller.random.choice(group.causes)
    name, _ = teller.random.choice(NAMES)
    return [(f"{group.heading}: {name} {teller.random.choice(wordings[:-1])}.", QUESTION), (f" {effect}", ANSWER)]


def stories(teller: Teller) -> Document:
    """Return one to five stories in the HellaSwag style."""
    document: Document = []
    count = teller.random.randint(1, 5)
    for index in range(count):
        part = story(teller) if teller.random.random() < 0.7 else consequence(teller)
        if index < count - 1:
            text, weight = part[-1]
            part[-1] = (text + "\n\n", weight)
        document += part
    return document


def study_note(teller: Teller) -> Document:
    """Return one fact as a statement, then asked for in the ARC style."""
    relation, fact = teller.fact()
    question = say(teller.random.choice(trained_questions(relation, fact)), fact)
    statement = say(teller.random.choice(relation.statements), fact)
    return [
        (statement + "\n\n", STATEMENT),
        (f"Question: {question}\nAnswer:", QUESTION),
        (f" {fact.object}", ANSWER),
    ]


# Shares of tokens, roughly: each kind's share of documents is its share over its mean length.
KINDS: tuple[tuple[Callable[[Teller], Document], float, float], ...] = (
    (statements, 0.27, 45.0),
    (questions, 0.33, 85.0),
    (multiple_choice, 0.19, 150.0),
    (stories, 0.17, 115.0),
    (study_note, 0.04, 35.0),
)


def documents(seed: int) -> Iterator[Document]:
    """Yield training documents for ever, the same for the same seed."""
    teller = Teller(seed)
    makers = [maker for maker, _, _ in KINDS]
    weights = [share / length for _, share, length in KINDS]
    while True:
        yield teller.random.choices(makers, weights)[0](teller)


def plain(document: Document) -> str:
    """Return the text of a document."""
    return "".join(text for text, _ in document)
