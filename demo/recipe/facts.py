"""Load the committed facts, wordings and stories.

Everything here is read from `demo/facts/`; nothing is random and nothing is written.
"""

from __future__ import annotations

import csv
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DEMO = Path(__file__).parents[1]
FACTS = DEMO / "facts"


@dataclass(frozen=True)
class Fact:
    """One subject and its one right object under a relation."""

    relation: str
    subject: str
    object: str


@dataclass(frozen=True)
class Relation:
    """The wordings and the facts of one relation."""

    name: str
    area: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    held_out: tuple[str, ...]
    facts: tuple[Fact, ...]

    @property
    def objects(self) -> tuple[str, ...]:
        """The distinct objects, in a fixed order: the pool of wrong answers."""
        return tuple(sorted({fact.object for fact in self.facts}))


@dataclass(frozen=True)
class Script:
    """An everyday activity: a heading and its steps, each in several wordings."""

    heading: str
    steps: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class CauseGroup:
    """Causes about one thing; a cause is (wordings, effect), its last wording is held out."""

    heading: str
    causes: tuple[tuple[tuple[str, ...], str], ...]


def alternatives(template: str) -> tuple[str, ...]:
    """Expand every choice `[x|y]` of a template, in order.

    >>> alternatives("[a|b] c")
    ('a c', 'b c')
    """
    start = template.find("[")
    if start < 0:
        return (template,)
    end = template.index("]", start)
    head, tail = template[:start], template[end + 1 :]
    return tuple(head + choice + rest for choice in template[start + 1 : end].split("|") for rest in alternatives(tail))


def _expand(templates: list[str]) -> tuple[str, ...]:
    return tuple(text for template in templates for text in alternatives(template))


def _fact_rows() -> list[Fact]:
    rows: list[Fact] = []
    for path in sorted(FACTS.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as stream:
            rows += [Fact(row["relation"], row["subject"], row["object"]) for row in csv.DictReader(stream)]
    by_hand = tomllib.loads((FACTS / "by_hand.toml").read_text(encoding="utf-8"))
    for relation, table in by_hand.items():
        rows += [Fact(relation, subject, object_) for subject, object_ in table.items()]
    return rows


@cache
def relations() -> tuple[Relation, ...]:
    """Return every relation with its facts, sorted by name."""
    rows = _fact_rows()
    wordings = tomllib.loads((FACTS / "phrasings.toml").read_text(encoding="utf-8"))
    unknown = {row.relation for row in rows} ^ set(wordings)
    if unknown:
        raise ValueError(f"facts and phrasings disagree about the relations {sorted(unknown)}")
    return tuple(
        Relation(
            name=name,
            area=words["subject"],
            statements=_expand(words["statements"]),
            questions=_expand(words["questions"]),
            held_out=_expand(words["held_out"]),
            facts=tuple(row for row in rows if row.relation == name),
        )
        for name, words in sorted(wordings.items())
    )


def _blocks(path: Path) -> list[list[str]]:
    """Return the blank-line separated blocks of a text file, without its comment lines."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [block.strip().splitlines() for block in "\n".join(lines).split("\n\n") if block.strip()]


@cache
def scripts() -> tuple[Script, ...]:
    """Return the everyday scripts in file order."""
    return tuple(
        Script(heading, tuple(tuple(step.split(" | ")) for step in steps))
        for heading, *steps in _blocks(FACTS / "scripts.txt")
    )


@cache
def cause_groups() -> tuple[CauseGroup, ...]:
    """Return the groups of causes and effects in file order."""
    groups = []
    for heading, *lines in _blocks(FACTS / "causes.txt"):
        pairs = [line.split(" => ") for line in lines]
        groups.append(CauseGroup(heading, tuple((tuple(cause.split(" | ")), effect) for cause, effect in pairs)))
    return tuple(groups)
