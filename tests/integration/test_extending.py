"""The modules of docs/extending.md, installed as packages of their own, do their work in the real processes."""

import json
import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from shared.kernel.errors import ConfigurationError
from shared.llama.model import Context, Model
from shared.wire.node_jobs.engines import EngineInfo, StartEngineParams, StartWorkerParams
from shared.wire.node_jobs.workloads import (
    GenerateItem,
    GenerateParams,
    ScoreGroup,
    ScoreItem,
    ScoreParams,
    ScoreResult,
)
from surgeon.planning.plan_file import read_plan
from tests.support.extensions import install
from tests.support.meter_rig import MeterRig
from tests.support.node_lab import agents, client
from tests.support.node_tiny_model import write_tiny_model

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of every process that the test starts."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    return folder


def install_documented(section: str, folder: Path) -> None:
    """Install the module of a section of the document with the entry points that stand there."""
    (text,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    ((name, code),) = re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (project,) = re.findall(r"^```toml\n(\[project\.entry-points.*?)^```$", text, re.MULTILINE | re.DOTALL)
    install(folder, name, code, tomllib.loads(project)["project"]["entry-points"])


MODULES = re.findall(r"^## (.*)\n(?:(?!^## )[^\n]*\n)*?```toml\n\[project\.entry-points", DOCUMENT, re.MULTILINE)
"""Sections that show a module of one's own; an architecture is a row of the project's table."""


def test_every_kind_is_shown() -> None:
    assert MODULES == ["A meter source", "An engine", "A ranking", "A search", "A kind of surgery"]


@pytest.mark.parametrize("name", MODULES)
def test_the_documented_modules_keep_the_project_s_style(name: str, packages: Path) -> None:
    install_documented(name, packages)
    checks = (["ruff", "check"], ["ruff", "format", "--check"], ["mypy", "--strict", "--no-incremental"])
    for check in checks:
        settings = ["--config-file" if check[0] == "mypy" else "--config", str(ROOT / "pyproject.toml")]
        done = subprocess.run(
            [sys.executable, "-m", *check, *settings, *map(str, packages.glob("*.py"))],
            cwd=ROOT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_source_feeds_a_bridge(tmp_path: Path, packages: Path) -> None:
    install_documented("A meter source", packages)
    files = []
    for node, microwatts in (("node1", 5_000_000), ("node2", 8_250_000)):
        files.append(str(tmp_path / node))
        (tmp_path / node).write_text(f"{microwatts}\n")
    with MeterRig(tmp_path) as rig:
        rig.start_bridge(source=f'[source]\nkind = "hwmon"\nfiles = {files!r}\nrate_hz = 20\n')
        rig.wait(lambda: rig.status().frames >= 10, "readings of the monitors")
        status, block = rig.status(), rig.samples()
    assert (status.problems, status.instrument.kind, status.instrument.emulated) == ((), "hwmon", False)
    assert "DC rails" in block.instrument.measurement_point
    assert set(block.power_w["node1"]) == {5.0}
    assert set(block.power_w["node2"]) == {8.25}


async def test_the_engine_scores_on_a_node_and_has_its_place_in_ids(tmp_path: Path, packages: Path) -> None:
    install_documented("An engine", packages)
    model = write_tiny_model(tmp_path / "tiny.gguf")
    item = ScoreItem(suffix="Is it so?", continuations=(" yes", " no"))
    with agents(tmp_path, "one") as (one,):
        one.end()
        one.config.write_text(f"{one.config.read_text()}\n[engines.chance]\nsymbols = 128\n")
        one.start()
        async with client(one) as node:
            infos = [EngineInfo.model_validate(info) for info in await node.request("GET", "/v1/engines")]
            assert [(info.name, info.generate) for info in infos if info.name == "chance"] == [("chance", False)]
            params = StartEngineParams(model_sha256=one.store(model), engine="chance")
            assert (await node.run("t/e", "start_engine", params, timeout_s=30))["build"] == "chance 1.0"
            scored = await node.run("t/s", "score", ScoreParams(groups=(ScoreGroup(items=(item,)),)), timeout_s=30)
            (answer,) = ScoreResult.model_validate(scored).groups[0]
            assert answer.log_likelihoods == pytest.approx((-4 * math.log(128), -3 * math.log(128)))
            text = GenerateParams(items=(GenerateItem(prompt="x", max_tokens=1),))
            with pytest.raises(ConfigurationError, match="chance's texts may not be judged"):
                await node.run("t/g", "generate", text, timeout_s=30)
            with pytest.raises(ConfigurationError, match="chance has no worker on this node"):
                await node.run("t/w", "start_worker", StartWorkerParams(engine="chance"), timeout_s=30)
    ask = (
        "from orchestrator.domain.campaign.matrix import parse_selection\n"
        "print(*(one.id for one in parse_selection('drop2_late.chance.n1')))"
    )
    said = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert set(said.stdout.split()) == {"baseline_biased", "baseline_biased.chance.n1", "drop2_late.chance.n1"}


def epi(*words: str, fails: bool = False) -> str:
    """Run `epi` in a process of its own and return what it prints, or where it must fail, its message."""
    argv = [sys.executable, "-c", "from shared.cli import main; main()", *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode == 1) == fails and "Traceback" not in done.stderr, done.stderr
    return done.stderr if fails else done.stdout


def test_the_ranking_makes_a_plan(tmp_path: Path, packages: Path) -> None:
    install_documented("A ranking", packages)
    model, text, statistics, target = (str(tmp_path / name) for name in ("m.gguf", "t.txt", "s.safetensors", "p.json"))
    write_tiny_model(Path(model))
    Path(text).write_text("Hello the and then 1234567890, in an other\n" * 20)
    epi("surgery", "observe", model, text, "-o", statistics, "--window", "32")
    methods = json.loads(epi("surgery", "methods", "--json"))
    assert methods["mean_gate"]["parameters"][0]["name"] == "prior" and "reap" in methods
    choice = ("--method", "mean_gate", "--parameter", "prior=2.5", "--depth", "1")
    epi("surgery", "plan", "-s", statistics, *choice, "-o", target)
    plan = read_plan(Path(target))
    assert (plan.method, plan.parameters) == ("mean_gate", {"depth": 1, "group": "all", "prior": 2.5})
    ranked = json.loads(epi("surgery", "rank", "-s", statistics, *choice[:4], "--json"))["saliency"]
    assert plan.dropped == tuple((row.index(min(row)),) for row in ranked)


def test_the_search_is_a_command_and_a_name_in_a_campaign(tmp_path: Path, packages: Path) -> None:
    install_documented("A search", packages)
    model, target = write_tiny_model(tmp_path / "m.gguf", n_layers=2), tmp_path / "plan.json"
    info = json.loads(epi("surgery", "methods", "--json"))["k_centre"]
    assert (info["kind"], info["needs"], info["parameters"][0]["name"]) == ("search", ["weights"], "starts")
    assert "k-centre" in epi("surgery", "search", "--help")
    search = ("surgery", "search", "k-centre", str(model), "--json", "-o", str(target))
    report = json.loads(epi(*search, "--depth", "1", "--starts", "2"))
    plan = read_plan(target)
    assert len(report["radius"]) == 2 and report["plan_hash"] == plan.plan_hash()
    assert (plan.method, plan.parameters, [*map(len, plan.kept)]) == ("k_centre", {"depth": 1, "starts": 2}, [3, 3])
    assert "starts" in epi(*search, "--depth", "1", "--starts", "0", fails=True)
    assert "drop fewer" in epi(*search, "--depth", "3", fails=True)
    ask = (
        "import asyncio, json\n"
        "from tests.unit import test_campaign_admission as lab\n"
        "from surgeon.catalogue import CatalogueReader\n"
        "from surgeon.settings import SurgeonSettings\n"
        f"settings = SurgeonSettings(name='s', port=1, state_dir={str(tmp_path)!r}, models={{'demo': {str(model)!r}}},"
        " corpora={'demo': ()})\n"
        "catalogue = asyncio.run(CatalogueReader(settings).read())\n"
        "for own in ({'starts': 3}, {'stops': 3}):\n"
        "    table = {'experts': {'search': 'k_centre', 'drop': '25%', **own}}\n"
        "    spec = lab.CampaignSpec.model_validate({**lab.SPEC, **lab.variant(table)})\n"
        "    try: print(lab.held_against(spec, catalogue, lab.NODES).id)\n"
        "    except lab.ConfigurationError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    first, second = said.stdout.splitlines()
    assert first == "wrong" and "k_centre has no parameter 'stops'" in second


def test_the_kind_of_surgery_cuts_a_model_and_proves_it(tmp_path: Path, packages: Path) -> None:
    install_documented("A kind of surgery", packages)
    base = write_tiny_model(tmp_path / "base.gguf", n_layers=3)
    surgeries, target = tmp_path / "surgeries.json", tmp_path / "cut.gguf"
    keep_three = {"kind": "prune_experts", "n_experts": 4, "kept": [[0, 1, 3]] * 2}
    surgeries.write_text(json.dumps([{"kind": "drop_layers", "count": 1}, keep_three]))
    listed = json.loads(epi("surgery", "kinds", "--json"))["drop_layers"]
    assert (listed["description"], listed["parameters"][0]["name"]) == ("Drop the last layers.", "count")
    epi("surgery", "apply", str(base), str(surgeries), str(target))
    report = json.loads(epi("surgery", "verify", str(base), str(surgeries), str(target), "--json"))
    assert report["n_bytes"] > target.stat().st_size, "both passes are proved"
    with Model(target) as model, Context(model, context_tokens=64, batch_tokens=64) as context:
        tokens = model.tokenize("Hello the")
        context.decode(tokens, range(len(tokens)))
        assert np.isfinite(context.logits(len(tokens) - 1)).all(), "llama.cpp runs what is left"
    data = bytearray(target.read_bytes())
    data[-100] ^= 1
    target.write_bytes(data)
    assert "not the base's" in epi("surgery", "verify", str(base), str(surgeries), str(target), fails=True)
    surgeries.write_text(json.dumps([{"kind": "drop_layers", "count": 3}]))
    assert "3 of 3 layers cannot be dropped" in epi(
        "surgery", "apply", str(base), str(surgeries), str(target), fails=True
    )
