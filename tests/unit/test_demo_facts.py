"""The demo's facts and wordings: complete, unambiguous, and test wordings never trained."""

from __future__ import annotations

from itertools import islice

import pytest

from demo.recipe.corpus import documents, plain
from demo.recipe.facts import Relation, alternatives, cause_groups, relations, scripts
from demo.recipe.phrasing import article, reserved_questions, say, trained_questions


def test_alternatives_expand_in_order() -> None:
    assert alternatives("[a|b] of [|the ]c") == ("a of c", "a of the c", "b of c", "b of the c")


@pytest.mark.parametrize(("noun", "expected"), [("hammer", "a"), ("ant", "an"), ("unicorn", "a"), ("ohmmeter", "an")])
def test_article(noun: str, expected: str) -> None:
    assert article(noun) == expected


def test_there_are_enough_facts() -> None:
    assert len(relations()) >= 36
    assert sum(len(relation.facts) for relation in relations()) >= 1700
    assert len(scripts()) >= 40
    assert sum(len(group.causes) for group in cause_groups()) >= 44


@pytest.mark.parametrize("relation", relations(), ids=lambda relation: relation.name)
def test_relation_is_usable(relation: Relation) -> None:
    assert len({fact.subject for fact in relation.facts}) == len(relation.facts), "a subject has two answers"
    assert len(relation.objects) >= 4, "too few answers for four options"
    assert len(relation.questions) >= 6
    assert len(relation.held_out) >= 2
    assert not set(relation.questions) & set(relation.held_out)
    for fact in relation.facts:
        assert trained_questions(relation, fact)
        assert not set(trained_questions(relation, fact)) & set(reserved_questions(relation, fact))
        for wording in relation.statements + relation.questions + relation.held_out:
            assert "{" not in say(wording, fact)


def test_every_script_has_five_steps_and_every_group_four_causes() -> None:
    for script in scripts():
        assert [len(step) for step in script.steps] == [2] * 5, script.heading
    for group in cause_groups():
        assert len({effect for _, effect in group.causes}) == 4, group.heading
        assert all(len(wordings) == 3 for wordings, _ in group.causes), group.heading


def test_corpus_is_deterministic() -> None:
    first, second = (["".join(plain(d)) for d in islice(documents(3), 50)] for _ in range(2))
    assert first == second
    assert first != [plain(d) for d in islice(documents(4), 50)]
