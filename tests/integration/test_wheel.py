"""The wheel: what is in it, and that it works where neither the source nor an editable installation is at hand."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from orchestrator.web.routes import VENDOR_FILES
from shared.kernel.build import PACKAGES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy of the committed and changed files, so that no `build/` of earlier days gets into it."""
    source = tmp_path_factory.mktemp("source")
    listed = ("git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")
    vendor = [f"orchestrator/web/node_modules/{inside}" for inside in VENDOR_FILES.values()]
    for name in [*filter(None, names), *vendor]:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    subprocess.run([*pip, "--wheel-dir", str(out), str(source)], check=True, timeout=300)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install it alone into an environment of its own that finds third-party packages in ours."""
    home = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(home, with_pip=True)
    subprocess.run([home / "bin/pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True, timeout=300)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "third_party.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


def epi(home: Path, *arguments: str, cwd: Path, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [home / "bin/epi", *arguments], cwd=cwd, env=clean, capture_output=True, text=True, timeout=timeout_s
    )


def test_everything_that_is_used_is_in_it_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = ("git", "-C", str(ROOT), "ls-files", "-z", "--", *PACKAGES)
    expected = set(filter(None, subprocess.run(tracked, check=True, capture_output=True, text=True).stdout.split("\0")))
    expected -= {name for name in expected if name.startswith("orchestrator/web/") and Path(name).suffix == ".json"}
    expected -= {"orchestrator/web/eslint.config.js"}
    assert expected <= names, sorted(expected - names)[:5]
    assert {f"orchestrator/web/node_modules/{inside}" for inside in VENDOR_FILES.values()} <= names
    assert len([name for name in names if "node_modules" in name]) <= len(VENDOR_FILES) + 2, "licences besides"
    assert not [name for name in names if name.split("/")[0] in ("tests", "demo", "ansible", "build", "docs")]
    demo = {name.partition("/demo/")[2] for name in names if "/share/epi-factory/demo/" in name}
    assert {
        "demo.toml",
        "heldout.txt",
        "model/model.safetensors",
        "tasks/utils.py",
        "tasks/data/arc_style.jsonl",
    } <= demo


def test_the_commands_answer_and_name_their_build(installed: Path, tmp_path: Path) -> None:
    said = epi(installed, "--version", cwd=tmp_path).stdout
    assert said.startswith("epi 0.2.0+c"), said
    text = epi(installed, "--help", cwd=tmp_path).stdout
    assert all(command in text for command in ("campaign", "demo", "meter", "node", "surgery", "results"))
    listed = json.loads(epi(installed, "surgery", "methods", "--json", cwd=tmp_path).stdout)
    assert listed, "an entry point of the wheel"
    epi(installed, "campaign", "new", "paper", "first.toml", cwd=tmp_path)
    assert (tmp_path / "first.toml").is_file(), "an example is package data"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    out = Path("/tmp") / f"epi-wheel-{os.getpid()}"  # short: Unix sockets
    asked = ("demo", "--configs", "baseline,drop4_all", "--reps", "1", "--questions", "10", "--out", str(out))
    done = epi(installed, *asked, cwd=tmp_path, timeout_s=800)
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = out.glob("demo-*/drop4_all/epi_001.json")
    document = json.loads(result.read_text())
    assert document["epi"]["value"] > 0
    assert document["provenance"]["software"]["node1"]["revision"] is None
