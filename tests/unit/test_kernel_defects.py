"""What does not fit is worded once: field, reason, and the value where it is one and short."""

import json

import pytest
from pydantic import Field, ValidationError, model_validator

from shared.kernel.defects import field_defects, first_defect, reason_of
from shared.kernel.records import Record


class Task(Record):
    name: str = Field(pattern="^[a-z]+$")
    shots: int = Field(ge=0)


class Spec(Record):
    tasks: tuple[Task, ...] = ()
    limit: float = 1.0

    @model_validator(mode="after")
    def _fits(self) -> "Spec":
        if self.limit < len(self.tasks):
            raise ValueError("more tasks than the limit")
        return self


def said(data: object) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Spec.model_validate(data)
    assert str(first_defect(caught.value)) == str(field_defects(caught.value)[0]) == reason_of(caught.value)
    return [str(defect) for defect in field_defects(caught.value)]


def test_path_reason_and_short_value() -> None:
    assert said({"tasks": [{"name": "arc", "shots": 1}, {"name": "A\n\x1b[2J", "shots": -3}]}) == [
        "tasks.1.name: String should match pattern '^[a-z]+$' (given: 'A\\n\\x1b[2J')",
        "tasks.1.shots: Input should be greater than or equal to 0 (given: -3)",
    ]
    assert said({"tasks": [{"name": "X" * 60, "shots": 1}]}) == [
        "tasks.0.name: String should match pattern '^[a-z]+$'"
    ], "a long value is left out"
    assert said({"tasks": {"a": 1}}) == ["tasks: Input should be a valid tuple"], "a container is left out"
    assert said({"limit": None}) == ["limit: Input should be a valid number (given: None)"]


def test_a_field_that_nobody_knows_may_hold_a_secret() -> None:
    assert said({"token": "correct-horse"}) == ["token: Extra inputs are not permitted"]
    assert said({"tasks": [{"shots": 1}]}) == ["tasks.0.name: Field required"]


def test_what_a_validator_says_is_said_as_it_is() -> None:
    assert said({"limit": 0.5, "tasks": [{"name": "arc", "shots": 1}]}) == ["more tasks than the limit"]
    assert said(7) == ["Input should be a valid dictionary or instance of Spec (given: 7)"]


def test_a_parser_says_it_itself() -> None:
    with pytest.raises(ValueError, match="Expecting value") as caught:
        json.loads("")
    assert reason_of(caught.value) == str(caught.value)
