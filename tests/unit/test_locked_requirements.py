"""The lock (requirements/): whole, hashed, the same on every machine, and in step with pyproject.toml."""

import importlib.metadata
import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
BUILT_HERE = "llama-cpp-python"
MACHINES = [
    {
        "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": machine,
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
        "python_version": version, "python_full_version": f"{version}.2", "extra": "",
    }
    for machine in ("x86_64", "aarch64") for version in ("3.11", "3.12", "3.13")
]  # fmt: skip
_PIN = re.compile(r"^(?P<pin>[^\s#-][^\\\n]*?) ?\\\n(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", re.MULTILINE)


def pins(path: Path) -> list[Requirement]:
    """Return what a file pins; every line of it belongs to a pin with hashes, or is a comment."""
    text = path.read_text()
    found = list(_PIN.finditer(text))
    rest = _PIN.sub("", text)
    assert all(line.startswith("#") for line in rest.splitlines() if line), f"{path.name}: {rest[:200]!r}"
    return [Requirement(match["pin"]) for match in found]


def on(machine: dict[str, str], path: Path) -> dict[str, str]:
    """Return name -> version of what a file brings onto a machine."""
    chosen = [one for one in pins(path) if one.marker is None or one.marker.evaluate(machine)]
    found: dict[str, str] = {}
    for one in chosen:
        (specifier,) = one.specifier
        assert specifier.operator == "==", one
        name = canonicalize_name(one.name)
        assert found.setdefault(name, specifier.version) == specifier.version, f"{path.name} pins {name} twice"
    return found


def test_there_is_a_file_for_each_extra_and_no_other() -> None:
    assert {path.stem for path in LOCKS} == {"build", "engine", "npm", *EXTRAS}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_pin_has_hashes_and_nothing_names_an_address(path: Path) -> None:
    assert pins(path), "an empty lock"
    for word in ("://", "--index", "--extra-index", "--find-links", "--trusted-host", " @ ", "-e "):
        assert word not in path.read_text(), word


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: f"{m['platform_machine']}-{m['python_version']}")
@pytest.mark.parametrize("extra", EXTRAS)
def test_what_pyproject_asks_for_is_pinned_on_every_machine(extra: str, machine: dict[str, str]) -> None:
    locked = on(machine, ROOT / "requirements" / f"{extra}.txt")
    for text in (*PROJECT["dependencies"], *EXTRAS[extra]):
        wanted = Requirement(text)
        name = canonicalize_name(wanted.name)
        if name == BUILT_HERE:
            assert name not in locked
        elif wanted.marker is None or wanted.marker.evaluate(machine):
            assert name in locked, f"{text} is not in requirements/{extra}.txt: run `make lock`"
            assert wanted.specifier.contains(locked[name], prereleases=True), f"{text}, locked {locked[name]}"


def test_one_version_of_each_package_in_all_files_on_all_machines() -> None:
    versions: dict[str, str] = {}
    for path in LOCKS:
        for machine in MACHINES:
            for name, version in on(machine, path).items():
                assert versions.setdefault(name, version) == version, f"{name}: {versions[name]}, {version} in {path}"


def test_what_is_installed_asks_for_nothing_outside_the_lock() -> None:
    """From the project down through everything it brings, by what the installed packages themselves say."""
    here = next(m for m in MACHINES if m["python_version"] == ".".join(map(str, sys.version_info[:2])))
    extras = [extra for extra in EXTRAS if extra != "train"]
    locked = {name for extra in extras for name in on(here, ROOT / "requirements" / f"{extra}.txt")} | {BUILT_HERE}
    left = [Requirement(text) for extra in extras for text in (*PROJECT["dependencies"], *EXTRAS[extra])]
    seen: set[tuple[str, frozenset[str]]] = set()
    while left:
        wanted = left.pop()
        name = canonicalize_name(wanted.name)
        assert name in locked, f"{wanted} is needed and not locked: run `make lock`"
        if (key := (name, frozenset(wanted.extras))) in seen:
            continue
        seen.add(key)
        for text in importlib.metadata.requires(name) or ():
            inner = Requirement(text)
            if any(inner.marker is None or inner.marker.evaluate({**here, "extra": e}) for e in ("", *wanted.extras)):
                left.append(inner)
    assert len(seen) > 80


def test_the_build_tools_of_the_project_are_locked() -> None:
    build = on(MACHINES[0], ROOT / "requirements" / "build.txt")
    assert all(canonicalize_name(Requirement(text).name) in build for text in PYPROJECT["build-system"]["requires"])


def test_the_build_tools_of_the_engine_are_locked_and_used_without_isolation() -> None:
    """What the source package asks for, and what those ask for: pip would fetch the newest of them, unseen."""
    tools = on(MACHINES[0], ROOT / "requirements" / "engine.txt")
    assert {"scikit-build-core", "ninja", "packaging", "pathspec"} <= set(tools)
    assert all(on(machine, ROOT / "requirements" / "engine.txt") == tools for machine in MACHINES)
    builder = runpy.run_path(str(ROOT / "shared/llama/engine_wheel.py"))
    assert builder["tools_file"]() == ROOT / "requirements" / "engine.txt"
    source = (ROOT / "shared/llama/engine_wheel.py").read_text()
    assert source.count('"--no-build-isolation"') == 1 and source.count('"--require-hashes"') == 2
    assert source.count('"--no-cache-dir"') == 1, (
        "pip keeps wheels by their source's hash, whatever they were built with"
    )


def test_the_engines_builder_finds_its_tools_lock_where_a_machine_of_the_lab_has_it(tmp_path: Path) -> None:
    for name in ("shared/llama/engine_wheel.py", "requirements/engine.txt"):
        (tmp_path / Path(name).name).write_bytes((ROOT / name).read_bytes())
    builder = runpy.run_path(str(tmp_path / "engine_wheel.py"))
    assert builder["tools_file"]() == tmp_path / "engine.txt"
    tasks = (ROOT / "ansible/roles/engine/tasks/llama_cpp.yml").read_text()
    assert "requirements/engine.txt" in tasks and "libexec/engine.txt" in tasks


def test_a_release_holds_its_lock_so_that_its_id_says_all() -> None:
    files_of = runpy.run_path(str(ROOT / "ansible/roles/release/files/build_release.py"))["files_of"]
    assert {Path("requirements") / path.name for path in LOCKS} <= set(files_of(ROOT))
