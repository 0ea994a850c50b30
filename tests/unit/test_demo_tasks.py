"""The demo's test questions: balanced, committed as generated, never in the training text."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import pytest

from demo.recipe.corpus import documents, plain
from demo.recipe.facts import DEMO
from demo.recipe.tasks import DATA, all_rows

STYLES = ("mmlu_style", "arc_style", "hellaswag_style")
TRAINING_SAMPLE = 20_000


@pytest.mark.parametrize("name", sorted(all_rows()))
def test_committed_rows_are_what_the_recipe_makes(name: str) -> None:
    lines = (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(json.dumps(asdict(row))) for row in all_rows()[name]]


@pytest.mark.parametrize("style", STYLES)
def test_rows_are_well_formed(style: str) -> None:
    rows = all_rows()[style]
    assert len(rows) >= 250
    assert len({row.id for row in rows}) == len(rows)
    assert all(len(set(row.choices)) == 4 for row in rows)
    places = Counter(row.answer for row in rows)
    assert max(places.values()) - min(places.values()) <= 1
    assert {row.phrasing for row in rows} == {"seen", "held_out"}


def test_no_test_question_is_in_a_sample_of_the_training_text() -> None:
    text = "\n".join(plain(document) for document in islice(documents(1), TRAINING_SAMPLE))
    for style in ("mmlu_style", "arc_style"):
        # A question is a whole line, in some kinds of document after a marker.
        lines = {line.removeprefix("Question: ").removeprefix("Q: ") for line in text.splitlines()}
        assert not [row.id for row in all_rows()[style] if row.question in lines]
    assert not [row.id for row in all_rows()["hellaswag_style"] if row.question in text]


def test_calibration_text_has_no_test_question() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (DEMO / "calibration").glob("*.txt"))
    held_out = (DEMO / "heldout.txt").read_text(encoding="utf-8")
    for style in STYLES:
        for row in all_rows()[style]:
            assert row.question not in text, row.id
            assert row.question not in held_out, row.id


@pytest.mark.parametrize("path", sorted((DEMO / "tasks").glob("*.yaml")), ids=lambda path: path.stem)
def test_task_name_states_its_shots(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    fields = dict(line.strip().split(": ", 1) for line in lines if ": " in line and not line.startswith("#"))
    style = fields["style"]
    assert fields["task"] == path.stem == f"demo_{style}_{fields['num_fewshot']}shot"
    assert len(all_rows()[f"{style}_fewshot"]) == int(fields["num_fewshot"])
