"""What runs is named so that equal builds look equal and different ones different."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.campaign.builds import LabBuilds, check_builds
from orchestrator.domain.analysis.campaign_validity import check_software_over_runs
from orchestrator.domain.run.records import Provenance
from orchestrator.domain.run.validity import check_software
from shared.cli import app
from shared.kernel.build import PACKAGES, SoftwareBuild, look_up, software_build
from shared.kernel.errors import ConfigurationError
from shared.llama.build import EngineBuild, parse_system_info
from shared.wire.node_jobs.host import NodeFacts
from tests.support.domain_lab import run_input

ROOT = Path(__file__).parents[2]
BUILD = SoftwareBuild(version="0.2.0", code_sha256="a" * 64, packages_sha256="b" * 64, python="3.11.2")
ENGINE = EngineBuild(
    build="llama.cpp 0c1e570", ggml_commit="0c1e570", features=("NEON", "OPENMP"), openmp=True, repack=False,
    kleidiai=False, rpc=True, libraries_sha256="c" * 64,
)  # fmt: skip


def git(folder: Path, *arguments: str) -> str:
    named = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", "-C", folder, *named, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in PACKAGES:
        (tmp_path / "tree" / package).mkdir(parents=True)
        (tmp_path / "tree" / package / "__init__.py").write_text(f"NAME = {package!r}\n")
    (tmp_path / "tree" / "pyproject.toml").write_text('[project]\nversion = "9.8.7"\n')
    return tmp_path / "tree"


def test_a_checkout_is_named_by_its_revision_and_whether_it_was_changed(tree: Path, tmp_path: Path) -> None:
    git(tree, "init", "--quiet")
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "-m", "one")
    revision = git(tree, "rev-parse", "HEAD").strip()
    clean = look_up(tree, tmp_path)
    assert (clean.revision, clean.changed, str(clean)) == (revision, False, f"9.8.7+g{revision[:12]}")
    (tree / "notes.txt").write_text("no part of the code")
    assert look_up(tree, tmp_path) == clean
    (tree / "shared" / "new.py").write_text("x = 1\n")
    dirty = look_up(tree, tmp_path)
    assert str(dirty) == f"9.8.7+g{revision[:12]}.dirty.{dirty.code_sha256[:8]}"
    (tree / "shared" / "new.py").write_text("x = 2\n")
    assert str(look_up(tree, tmp_path)) != str(dirty), "two changes of one revision are told apart"


def test_an_installation_is_named_by_its_release_or_by_its_code(tree: Path, tmp_path: Path) -> None:
    bare = look_up(tree, tmp_path)
    assert str(bare) == f"9.8.7+c{bare.code_sha256[:12]}"
    (tmp_path / "release.json").write_text(json.dumps({"id": "0123456789abcdef"}))
    released = look_up(tree, tmp_path)
    assert str(released) == "9.8.7+r0123456789abcdef" and released.code_sha256 == bare.code_sha256
    (tmp_path / "release.json").write_text("[")
    assert look_up(tree, tmp_path) == bare


def test_the_command_and_this_process_say_the_same() -> None:
    said = CliRunner().invoke(app, ["--version"]).output
    assert said == f"epi {software_build()}\n" and "+" in said
    version = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version"))
    assert software_build().version == version.split('"')[1]


def test_the_engine_says_what_it_was_compiled_with() -> None:
    text = "CPU : SSE3 = 1 | AVX512 = 0 | OPENMP = 1 | REPACK = 1 | RPC : OPENMP = 1 | "
    assert parse_system_info(text) == ("SSE3", "OPENMP", "REPACK")
    done = subprocess.run(
        [sys.executable, "-m", "shared.llama.build"], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    found = EngineBuild.model_validate_json(done.stdout)
    assert found.rpc and found.features and found.ggml_commit and found.ggml_commit[:7] in found.build


def facts(name: str, **more: object) -> NodeFacts:
    return NodeFacts.model_validate(
        {"name": name, "n_cpus": 4, "memory_bytes": 1, "kernel": "6", "python": "3.11", "load_1min": 0.0,
         "disk_free_bytes": 1, "utc_ns": 1, "software": BUILD, "engine": ENGINE, **more}
    )  # fmt: skip


def flags(*nodes: NodeFacts) -> list[str]:
    return [finding.reason for finding in check_software(run_input(facts_before=nodes))]


def test_nodes_of_one_run_with_different_builds_are_flagged() -> None:
    other = BUILD.model_copy(update={"code_sha256": "d" * 64, "revision": "1" * 40})
    assert flags(facts("n1"), facts("n2")) == []
    assert flags(facts("n1", software=None, engine=None), facts("n2")) == [], "an earlier version said nothing"
    (reason,) = flags(facts("n1"), facts("n2", software=other))
    assert "n1: 0.2.0+caaaaaaaaaaaa" in reason and "n2: 0.2.0+g111111111111" in reason
    (reason,) = flags(facts("n1"), facts("n2", engine=ENGINE.model_copy(update={"ggml_commit": "fffffff"})))
    assert "llama.cpp" in reason
    pi = ENGINE.model_copy(update={"features": ("AVX2",), "libraries_sha256": "e" * 64})
    assert flags(facts("n1"), facts("n2", engine=pi)) == [], "compiled for another processor, but the same code"


def test_a_campaign_over_different_builds_of_the_engine_is_refused() -> None:
    configuration = run_input().configuration
    other = ENGINE.model_copy(update={"ggml_commit": "fffffff"})
    check_builds(["n1", "n2"], LabBuilds({}, {"n1": ENGINE, "n2": ENGINE}), [configuration])
    with pytest.raises(ConfigurationError, match=r"0c1e570 on n1; .*fffffff on n2"):
        check_builds(["n1", "n2"], LabBuilds({}, {"n1": ENGINE, "n2": other}), [configuration])
    alone = configuration.model_copy(update={"n_nodes": 1})
    check_builds(["n1", "n2"], LabBuilds({}, {"n1": ENGINE, "n2": other}), [alone])


def test_an_upgrade_between_two_runs_of_a_campaign_is_flagged() -> None:
    first = run_input(provenance=Provenance(software={"surgeon": BUILD}, engines={"n1": ENGINE}))
    later = Provenance(
        software={"surgeon": BUILD.model_copy(update={"code_sha256": "d" * 64})},
        engines={"n1": ENGINE.model_copy(update={"libraries_sha256": "e" * 64})},
    )
    second = run_input(provenance=later, repetition=2, run_id="later/rep-2")
    reasons = [finding.reason for finding in check_software_over_runs(first, second)]
    assert len(reasons) == 2 and reasons[0].startswith("surgeon ran") and "libraries on n1" in reasons[1]
    assert check_software_over_runs(first, run_input(provenance=Provenance())) == [], "an earlier version's run"
