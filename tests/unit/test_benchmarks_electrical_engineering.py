"""The project's own question set: sound, balanced, and its arithmetic recomputed."""

import ast
import csv
import json
import math
import operator
import re
from collections import Counter
from typing import Any

import pytest

from orchestrator.benchmarks.task_files import OWN_TASKS

FOLDER = OWN_TASKS / "electrical_engineering"
QUESTIONS: list[dict[str, Any]] = [
    json.loads(line) for line in (FOLDER / "questions.jsonl").read_text(encoding="utf-8").splitlines()
]
SHOTS: list[dict[str, Any]] = [
    json.loads(line) for line in (FOLDER / "shots.jsonl").read_text(encoding="utf-8").splitlines()
]
SECOND = {
    row["id"]: row
    for row in csv.DictReader(
        (FOLDER / "second_reading.tsv").read_text(encoding="utf-8").splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE
    )
}
OPERATORS: dict[type[ast.AST], Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}  # fmt: skip


def calculate(node: ast.AST) -> Any:
    """Evaluate arithmetic with functions of `math`, and nothing else."""
    match node:
        case ast.Expression(body=body):
            return calculate(body)
        case ast.Constant(value=int() | float() | complex() as value):
            return value
        case ast.Name(id="pi"):
            return math.pi
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -calculate(operand)
        case ast.BinOp(left=left, op=op, right=right):
            return OPERATORS[type(op)](calculate(left), calculate(right))
        case ast.Call(func=ast.Name(id=name), args=args):
            return (abs if name == "abs" else getattr(math, name))(*map(calculate, args))
    raise ValueError(f"not arithmetic: {ast.dump(node)}")


def number(option: str) -> float:
    """Return the number an option begins with."""
    found = re.match(r"(-?\d+)/(\d+)|(-?[\d,]+(?:\.\d+)?)", option)
    assert found is not None, option
    if found.group(1):
        return int(found.group(1)) / int(found.group(2))
    return float(found.group(3).replace(",", ""))


def test_every_question_is_complete_and_unique() -> None:
    assert len(QUESTIONS) >= 200
    assert len(SHOTS) == 5
    everything = QUESTIONS + SHOTS
    assert len({doc["id"] for doc in everything}) == len({doc["question"] for doc in everything}) == len(everything)
    for doc in everything:
        assert len(doc["choices"]) == len({choice.strip().lower() for choice in doc["choices"]}) == 4, doc["id"]
        assert doc["answer"] in range(4)
        assert doc["explanation"] and doc["source"] and doc["topic"], doc["id"]


def test_positions_are_balanced() -> None:
    counts = Counter(doc["answer"] for doc in QUESTIONS)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_no_simple_rule_finds_the_answers() -> None:
    """Always taking the longest or the shortest option must not help much."""
    for rule in (max, min):
        hits = sum(rule(range(4), key=lambda i, d=doc: len(d["choices"][i])) == doc["answer"] for doc in QUESTIONS)  # type: ignore[misc]
        assert hits / len(QUESTIONS) < 0.45


def test_the_second_reading_found_the_same_answers() -> None:
    assert set(SECOND) == {doc["id"] for doc in QUESTIONS}
    assert all(row["working"] for row in SECOND.values())
    assert [doc["id"] for doc in QUESTIONS if "ABCD"[doc["answer"]] != SECOND[doc["id"]]["answer"]] == []


def arithmetic_of(doc: dict[str, Any]) -> list[str]:
    """Return the calculations of both readings."""
    return [text for text in (doc["calculation"], SECOND.get(doc["id"], {}).get("calculation")) if text]


@pytest.mark.parametrize("doc", [doc for doc in QUESTIONS + SHOTS if arithmetic_of(doc)], ids=lambda doc: doc["id"])
def test_arithmetic_of_both_readings_gives_the_right_option_and_no_other(doc: dict[str, Any]) -> None:
    for text in arithmetic_of(doc):
        value = calculate(ast.parse(text, mode="eval"))
        right = number(doc["choices"][doc["answer"]])
        assert value == pytest.approx(right, rel=0.011, abs=1e-12)
        unit = doc["choices"][doc["answer"]].partition(" ")[2]
        for index, choice in enumerate(doc["choices"]):
            if index != doc["answer"] and choice.partition(" ")[2] == unit and re.match(r"-?\d", choice):
                assert number(choice) != pytest.approx(value, rel=0.02), choice
