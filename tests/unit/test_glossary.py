"""docs/glossary.md is true: every entry is in use, and no word that was given up is a name again."""

import ast
import io
import json
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
PARTS = ("shared", "orchestrator", "node_agent", "meter_bridge", "surgeon")
ALLOWED = {
    ("silence", "meter_bridge/sources/emulator/faults.py"),  # a fault of the emulated meter: it says nothing
    ("tied", "surgeon/conversion/to_gguf.py"),  # tied embeddings, the field's term
    ("hub", "orchestrator/benchmarks"),  # the Hugging Face hub
}


def _tables() -> tuple[list[str], list[str]]:
    """Return the code names of all entries, and the words that are not used any more."""
    text = GLOSSARY.read_text(encoding="utf-8")
    used, _, given_up = text.partition("## Words that are not used any more")
    entries = re.findall(r"^\|[^|\n]+\|[^|\n]+\| `([^`]+)` \|$", used, re.MULTILINE)
    words = [word.strip() for line in re.findall(r"^\| ([^|]+) \| [^|]+ \|$", given_up, re.MULTILINE)[1:]
             for word in line.split(",")]  # fmt: skip
    return entries, words


def _modules() -> list[Path]:
    return [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py")) if "node_modules" not in path.parts]


def _names(path: Path) -> Iterator[str]:
    """Yield what a module names: the module itself, its classes, functions, variables, fields and options."""
    yield path.stem
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("--"):
            yield node.value.lstrip("-").replace("-", "_")


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def _documents() -> Iterator[tuple[Path, str]]:
    """Yield keys of schemas and of shipped TOML files, and headings of the documents."""
    for path in sorted((ROOT / "docs" / "schemas").glob("*.json")):
        yield from ((path, key) for key in _keys(json.loads(path.read_text())))
    for path in (ROOT / "demo" / "demo.toml", *sorted((ROOT / "orchestrator/campaign/examples").glob("*.toml"))):
        yield from ((path, key) for key in _keys(tomllib.loads(path.read_text())))
    for path in (*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"):
        for heading in re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            yield from ((path, word) for word in re.findall(r"\w+", heading.lower()))


def _parts(name: str) -> set[str]:
    """Return the words of a name: of `SpecShelf` and `spec_shelf` spec, shelf, and every run of them."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    words = [word for word in snake.split("_") if word]
    return {"_".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}


def test_a_word_that_was_given_up_is_no_name_again() -> None:
    _, words = _tables()
    assert "looks" in words and "hub" in words
    names = [(path, name) for path in _modules() for name in _names(path)]
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, name in [*names, *_documents()]
        for word in _parts(name) & set(words)
        if not any(word == allowed and str(path.relative_to(ROOT)).startswith(place) for allowed, place in ALLOWED)
    }
    assert not found, "docs/glossary.md says what to call it instead"


def test_every_entry_is_in_use() -> None:
    entries, _ = _tables()
    assert len(entries) > 50
    names = {name for path in _modules() for name in _names(path)}
    assert [entry for entry in entries if entry not in names] == []


@pytest.mark.parametrize(
    ("name", "word"), [("SpecShelf", "shelf"), ("_bring_home", "bring_home"), ("window_silence_s", "silence")]
)
def test_names_are_taken_apart(name: str, word: str) -> None:
    assert word in _parts(name)
