"""Registries: what is in our package and what other distributions bring, found by name or refused with the reason."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.kernel.errors import BugError, ConfigurationError
from shared.kernel.registry import Registry
from tests.support.extensions import Tool, install


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with a package `toolbox` of three tools, one of which needs what is not installed."""
    package = tmp_path / "toolbox"
    package.mkdir()
    head = "from tests.support.extensions import Tool\n"
    for file, text in {
        "__init__": "",
        "base": "",
        "saw": head + 'TOOL = Tool("saw")\n',
        "hand_drill": head + 'TOOL = Tool("hand-drill")\n',
        "laser": "import no_such_package\n",
        "bench": "",
    }.items():
        (package / f"{file}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("toolbox", "theirs", "others")]:
        del sys.modules[name]


def tools() -> Registry[Tool]:
    return Registry(
        "tool", package="toolbox", attribute="TOOL", group="test.tools", fits=lambda found: isinstance(found, Tool),
        name_of=lambda tool: tool.name, helpers=("bench",),
    )  # fmt: skip


THEIRS = "from tests.support.extensions import Tool\nPLANE = Tool('plane')\nSAW = Tool('saw')\n"


def test_ours_are_found_by_their_module_and_imported_only_then(folder: Path) -> None:
    registry = tools()
    assert registry.get("hand-drill").name == "hand-drill"
    assert "toolbox.saw" not in sys.modules
    assert registry.get("saw") is registry.get("saw")
    assert registry.names() == ("hand-drill", "laser", "saw")


def test_theirs_are_found_by_entry_point(folder: Path) -> None:
    install(folder, "theirs", THEIRS, {"test.tools": {"plane": "theirs:PLANE"}})
    assert tools().get("plane").name == "plane"
    assert tools().names() == ("hand-drill", "laser", "plane", "saw")


@pytest.mark.parametrize(
    ("name", "points", "said"),
    [
        ("axe", {}, r"unknown tool 'axe' \(known: hand-drill, laser, saw\)"),
        ("hand_drill", {}, "unknown tool 'hand_drill'"),
        ("base", {}, "unknown tool 'base'"),
        ("bench", {}, "unknown tool 'bench'"),
        ("../saw", {}, "unknown tool"),
        ("", {}, "unknown tool"),
        ("laser", {}, "'laser' needs a package that is not installed: No module named 'no_such_package'"),
        ("gone", {"gone": "no_such_module:X"}, "'gone' needs a package that is not installed"),
        ("gone", {"gone": "theirs:NOTHING"}, "'gone' is not where it should be"),
        ("axe", {"axe": "theirs:PLANE"}, "the entry point 'axe' of test.tools holds no tool of this name"),
        ("axe", {"axe": "theirs:__doc__"}, "the entry point 'axe' of test.tools holds no tool of this name"),
        ("saw", {"saw": "theirs:SAW"}, r"'saw' is brought more than once: by theirs \(theirs:SAW\) \(uninstall"),
    ],
)
def test_what_cannot_be_found_is_refused_with_the_reason(
    folder: Path, name: str, points: dict[str, str], said: str
) -> None:
    install(folder, "theirs", THEIRS, {"test.tools": points})
    with pytest.raises(ConfigurationError, match=said):
        tools().get(name)


def test_two_others_of_one_name_are_refused(folder: Path) -> None:
    install(folder, "theirs", THEIRS, {"test.tools": {"plane": "theirs:PLANE"}})
    install(folder, "others", THEIRS, {"test.tools": {"plane": "others:PLANE"}})
    with pytest.raises(ConfigurationError, match=r"brought more than once: by .*others.* and .*theirs|theirs.*others"):
        tools().get("plane")


def test_a_module_of_ours_that_holds_nothing_is_a_bug(folder: Path) -> None:
    (folder / "toolbox" / "empty.py").write_text("")
    with pytest.raises(BugError, match=r"toolbox\.empty holds no tool as TOOL"):
        tools().get("empty")
