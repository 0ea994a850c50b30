"""Write the test questions and the pinned few-shot examples of the three lm-eval tasks.

Run it with `python -m demo.recipe.tasks`.

No test question's text occurs in the training text.  `phrasing` says how far away it is:
"seen" questions use a wording that training used for other facts (stories: sentences that
training used, told of a person it never met), "held_out" ones a wording that it never used.
Wrong answers come from the same relation, script or cause group.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

from demo.recipe.facts import DEMO, CauseGroup, Fact, Relation, Script, cause_groups, relations, scripts
from demo.recipe.phrasing import (
    HELD_OUT_LINKS,
    HELD_OUT_NAMES,
    LINKS,
    capital,
    linked,
    reserved_options,
    reserved_questions,
    say,
    trained_questions,
)

DATA = DEMO / "tasks" / "data"
SEED = 11
PER_RELATION = 3  # of each phrasing
SHOTS = {
    "mmlu_style": (("capital", "France"), ("element_symbol", "oxygen"), ("tool", "hammer")),
    "arc_style": (
        ("capital", "Spain"),
        ("si_unit", "force"),
        ("animal_class", "whale"),
        ("past_tense", "go"),
        ("occupation", "baker"),
    ),
}
SHOT_NAMES = (("Peter", "he"), ("Julia", "she"))


@dataclass(frozen=True)
class Row:
    """One question; `answer` is the index of the right choice."""

    id: str
    subject: str
    topic: str
    phrasing: str
    question: str
    choices: tuple[str, ...]
    answer: int


class Writer:
    """Collects the rows of one style, cycling the place of the right answer."""

    def __init__(self, style: str, prefix: str) -> None:
        self.prefix = prefix
        self.random = random.Random(f"{SEED}-{style}-{prefix}")
        self.rows: list[Row] = []
        self.places: list[int] = []

    def add(self, subject: str, topic: str, phrasing: str, question: str, right: str, wrong: list[str]) -> None:
        """Append a row with the choices in random order, each place right equally often."""
        if not self.places:
            self.places = self.random.sample(range(4), 4)
        place = self.places.pop()
        choices = self.random.sample(wrong, 3)
        choices.insert(place, right)
        number = len(self.rows) + 1
        self.rows.append(Row(f"{self.prefix}-{number:03d}", subject, topic, phrasing, question, tuple(choices), place))


def wrong_answers(writer: Writer, relation: Relation, fact: Fact) -> list[str]:
    """Return three wrong answers that training never showed together for this fact."""
    pool = [object_ for object_ in relation.objects if object_ != fact.object]
    wrong = writer.random.sample(pool, 3)
    for _ in range(200):
        if reserved_options(fact, wrong):
            break
        wrong = writer.random.sample(pool, 3)
    return wrong


def fact_rows(style: str, prefix: str) -> list[Row]:
    """Return PER_RELATION questions of each phrasing for every relation."""
    writer = Writer(style, prefix)
    shots = set(SHOTS[style])
    for relation in relations():
        facts = [fact for fact in relation.facts if (fact.relation, fact.subject) not in shots]
        writer.random.shuffle(facts)
        seen = [fact for fact in facts if reserved_questions(relation, fact)][:PER_RELATION]
        held_out = [fact for fact in facts if fact not in seen][:PER_RELATION]
        for phrasing, chosen in (("seen", seen), ("held_out", held_out)):
            for fact in chosen:
                wordings = reserved_questions(relation, fact) if phrasing == "seen" else list(relation.held_out)
                question = say(writer.random.choice(wordings), fact)
                wrong = wrong_answers(writer, relation, fact)
                writer.add(relation.area, relation.name, phrasing, question, fact.object, wrong)
    return writer.rows


def shot_rows(style: str, prefix: str) -> list[Row]:
    """Return the pinned examples of a fact style, in order."""
    writer = Writer(style, prefix)
    by_name = {relation.name: relation for relation in relations()}
    for name, subject in SHOTS[style]:
        relation = by_name[name]
        fact = next(fact for fact in relation.facts if fact.subject == subject)
        question = say(trained_questions(relation, fact)[0], fact)
        wrong = wrong_answers(writer, relation, fact)
        writer.add(relation.area, name, "shot", question, fact.object, wrong)
    return writer.rows


def add_story(writer: Writer, script: Script, shown: int, phrasing: str, person: tuple[str, str]) -> None:
    """Append a row that shows `shown` steps of a script and asks for the next one."""
    name, they = person
    links = HELD_OUT_LINKS if phrasing == "held_out" else LINKS
    context = f"{script.heading}: {name} {writer.random.choice(script.steps[0])}."
    for step in script.steps[1:shown]:
        context += " " + linked(writer.random.choice(links), they, writer.random.choice(step))
    endings = [f"{capital(they)} {writer.random.choice(step)}." for step in script.steps]
    later = endings[shown + 1 :]
    earlier = writer.random.sample(endings[:shown], 3 - len(later)) if len(later) < 3 else []
    writer.add("everyday", script.heading, phrasing, context, endings[shown], later + earlier)


def add_cause(writer: Writer, group: CauseGroup, index: int, phrasing: str, name: str) -> None:
    """Append a row that tells a cause and asks for its effect among the group's effects."""
    wordings, effect = group.causes[index]
    cause = wordings[-1] if phrasing == "held_out" else writer.random.choice(wordings[:-1])
    wrong = [other for _, other in group.causes if other != effect]
    writer.add("cause and effect", group.heading, phrasing, f"{group.heading}: {name} {cause}.", effect, wrong)


def story_rows() -> list[Row]:
    """Return the HellaSwag-style rows: every script five times, every cause once."""
    writer = Writer("hellaswag_style", "hellaswag")
    for number, script in enumerate(scripts()):
        for turn, shown in enumerate((1, 2, 2, 3, 4)):
            phrasing = ("seen", "held_out")[(turn + number) % 2]
            # With one step shown there is no link in the context to hold out.
            phrasing = "seen" if shown == 1 else phrasing
            add_story(writer, script, shown, phrasing, writer.random.choice(HELD_OUT_NAMES))
    for number, group in enumerate(cause_groups()):
        for index in range(len(group.causes)):
            phrasing = ("held_out", "seen")[(index + number) % 2]
            add_cause(writer, group, index, phrasing, writer.random.choice(HELD_OUT_NAMES)[0])
    return writer.rows


def story_shots() -> list[Row]:
    """Return two pinned stories, told of people who appear nowhere else."""
    writer = Writer("hellaswag_style", "hellaswag-shot")
    add_story(writer, scripts()[0], 2, "shot", SHOT_NAMES[0])
    add_story(writer, scripts()[11], 1, "shot", SHOT_NAMES[1])
    return writer.rows


def all_rows() -> dict[str, list[Row]]:
    """Return the rows of every data file by its name without suffix."""
    return {
        "mmlu_style": fact_rows("mmlu_style", "mmlu"),
        "mmlu_style_fewshot": shot_rows("mmlu_style", "mmlu-shot"),
        "arc_style": fact_rows("arc_style", "arc"),
        "arc_style_fewshot": shot_rows("arc_style", "arc-shot"),
        "hellaswag_style": story_rows(),
        "hellaswag_style_fewshot": story_shots(),
    }


def write(folder: Path) -> None:
    """Write one JSONL file per style and per few-shot set."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in all_rows().items():
        lines = [json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    write(DATA)
