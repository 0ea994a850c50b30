"""One of each: a mechanism of the house is written once; whoever writes it by hand again is named here."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRACE_COLUMNS = "timestamp,node,watts"
PARTS = ("shared", "node_agent", "meter_bridge", "surgeon", "orchestrator", "demo")


def _name(call: ast.Call) -> str:
    """Return the last part of what is called: `fsync` of `os.fsync(...)`."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _writes_by_hand(node: ast.AST) -> bool:
    """Tell whether a file is made durable, renamed or written in place; `str.replace` has two arguments."""
    if not isinstance(node, ast.Call):
        return False
    renames = _name(node) in {"replace", "rename"} and len(node.args) == 1 and not node.keywords
    return renames or _name(node) in {"fsync", "mkstemp", "NamedTemporaryFile", "write_text", "write_bytes"}


def _makes_a_client(node: ast.AST) -> bool:
    """Tell whether an HTTP client or a WebSocket connection is made, or a request sent without one."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    of = getattr(node.func.value, "id", "")
    makes = {"httpx": {"AsyncClient", "Client", "get", "post", "request", "stream"}, "websockets": {"connect"}}
    return node.func.attr in makes.get(of, set())


def _imports_a_client(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module in {"httpx", "websockets.sync.client", "urllib.request"}


def _asks_for_a_range(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("bytes=")


def _knows_the_dllama_magic(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value == 0x0A00ABCD


def _names_the_trace_columns(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip() == TRACE_COLUMNS


MECHANISMS: dict[str, tuple[Callable[[ast.AST], bool], set[str]]] = {
    "atomic write": (
        _writes_by_hand,
        {
            "shared/files/atomic.py", "shared/files/durability.py", "shared/files/kept_lines.py",
            "shared/files/disk.py",  # a try that is thrown away
            "shared/files/reserved_note.py",  # in place: a full disk takes nothing beside it
            "shared/files/artifacts.py",  # a folder of an earlier version gets its present name
            "shared/llama/engine_wheel.py",  # runs before anything is installed
            "node_agent/machine/governor.py", "node_agent/machine/led.py",  # the kernel's files
            "node_agent/machine/activity.py",  # the kernel's file
            "meter_bridge/sources/emulator/port.py",  # a link to a terminal
            "orchestrator/benchmarks/answer_sets.py",  # a damaged file is kept aside
            "surgeon/planning/plan_file.py",  # a pipe
            "surgeon/jobs/tools.py",  # a scratch file for a child process
            "orchestrator/api/campaigns.py",  # an archive that is sent and removed
            "demo/recipe/evaluate.py", "demo/recipe/export.py", "demo/recipe/samples.py", "demo/recipe/tasks.py",
            "demo/recipe/tokenizer.py",  # made once, by hand
        },
    ),
    "wording of what does not fit": (
        lambda node: isinstance(node, ast.Call) and _name(node) == "errors" and not node.args,
        {"shared/kernel/defects.py"},
    ),
    "reader of distributed-llama's models": (_knows_the_dllama_magic, {"shared/checkpoints/dllama.py"}),
    "HTTP client": (lambda node: _makes_a_client(node) or _imports_a_client(node), {"shared/service/endpoint.py"}),
    "resumable download": (_asks_for_a_range, {"shared/files/download.py"}),
    "trace CSV": (_names_the_trace_columns, {"shared/files/trace_csv.py"}),
}  # fmt: skip


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_there_is_one(mechanism: str) -> None:
    found_by, places = MECHANISMS[mechanism]
    found = {
        str(path.relative_to(ROOT))
        for part in PARTS
        for path in (ROOT / part).rglob("*.py")
        if "node_modules" not in path.parts
        and any(found_by(node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert found - places == set(), f"use the {mechanism} of shared"
    assert places - found == set(), "no longer there: remove it from this list"
