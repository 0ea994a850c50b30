"""Turn facts and stories into sentences, and say which sentences belong to the tests only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from demo.recipe.facts import Fact, Relation

RESERVED_ONE_IN = 6

NAMES = (
    ("Anna", "she"), ("Ben", "he"), ("Clara", "she"), ("David", "he"), ("Emma", "she"), ("Felix", "he"),
    ("Grace", "she"), ("Henry", "he"), ("Ida", "she"), ("Jack", "he"), ("Kate", "she"), ("Leo", "he"),
    ("Mia", "she"), ("Noah", "he"), ("Olga", "she"), ("Paul", "he"), ("Rosa", "she"), ("Sam", "he"),
)  # fmt: skip
HELD_OUT_NAMES = (("Lily", "she"), ("Tom", "he"), ("Nora", "she"), ("Max", "he"))
LINKS = ("{They} ", "{They} ", "{They} ", "Then {they} ", "Next, {they} ", "After that, {they} ")
HELD_OUT_LINKS = ("Soon {they} ", "Now {they} ", "A little later, {they} ")


def draw(*key: object) -> int:
    """Return a fixed 32-bit number for a key, the same on every machine."""
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.blake2s(text.encode(), digest_size=4).digest(), "big")


def article(noun: str) -> str:
    """Return the indefinite article of a noun by its first letter, with the sounds that break the rule."""
    word = noun.lower()
    if word.startswith(("uni", "eu", "one ")):
        return "a"
    return "an" if word[:1] in "aeiou" or word.startswith(("led ", "hour")) else "a"


def capital(text: str) -> str:
    """Return text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def say(template: str, fact: Fact) -> str:
    """Fill a wording with a fact; the sentence starts with a capital."""
    sentence = template.format(
        s=fact.subject,
        S=capital(fact.subject),
        a=article(fact.subject),
        A=capital(article(fact.subject)),
        o=fact.object,
        O=capital(fact.object),
        ao=article(fact.object),
    )
    return capital(sentence)


def trained_questions(relation: Relation, fact: Fact) -> list[str]:
    """Return the question wordings that the training text may use for this fact."""
    kept = [wording for wording in relation.questions if not _reserved(fact, wording)]
    return kept or list(relation.questions[:1])


def reserved_questions(relation: Relation, fact: Fact) -> list[str]:
    """Return trained wordings that are never used for this fact in training, only in tests."""
    trained = set(trained_questions(relation, fact))
    return [wording for wording in relation.questions if wording not in trained]


def _reserved(fact: Fact, wording: str) -> bool:
    return draw("question", fact.relation, fact.subject, wording) % RESERVED_ONE_IN == 0


def reserved_options(fact: Fact, wrong: Sequence[str]) -> bool:
    """Tell whether this set of wrong options is kept for the tests."""
    return draw("options", fact.relation, fact.subject, *sorted(wrong)) % RESERVED_ONE_IN == 0


def linked(link: str, they: str, step: str) -> str:
    """Return the sentence of a later step: a link, the pronoun and the step."""
    return link.format(they=they, They=capital(they)) + step + "."
