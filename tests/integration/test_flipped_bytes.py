"""A byte flips in a file of a node or of the surgeon, when it matters: nothing is measured under a wrong hash.

Real agents on loopback. The campaigns end as undisturbed ones do: same hashes, same outputs, same answers.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli.agents import app as agents_cli
from shared.files.durability import hash_file
from shared.wire.artifact_checks import ArtifactReport
from shared.wire.client import AgentClient
from tests.crash.answers import outcome_of
from tests.support.flipped_bytes import flip_byte, flip_byte_unseen
from tests.support.lab import TestLab, api_of, running_lab, short_spec, start_campaign, wait_for_end, wait_for_step

pytestmark = pytest.mark.timeout(300)

CONFIGURATIONS = ("baseline", "drop2_all")


@pytest.fixture(scope="module")
def lab() -> Iterator[TestLab]:
    with running_lab(None) as lab:
        yield lab


@pytest.fixture(scope="module")
def healthy(lab: TestLab) -> dict[str, Any]:
    """Return what came of a campaign that nobody disturbed, and the hashes of its files."""
    start_campaign(lab, short_spec("healthy", ",".join(CONFIGURATIONS)))
    status = wait_for_end(lab, "healthy")
    assert status["state"] == "finished", status["reason"]
    provenance = json.loads((lab.out / "healthy" / "drop2_all" / "run_001.json").read_text())["provenance"]
    return outcome_of(lab, "healthy", CONFIGURATIONS) | {
        "base": provenance["base_sha256"], "variant": provenance["model_sha256"],
        "statistics": provenance["statistics_sha256"],
    }  # fmt: skip


def store(lab: TestLab, agent: str) -> Path:
    return lab.home / "state" / agent / "artifacts"


def damaged_in_journal(lab: TestLab, campaign: str) -> list[tuple[str, str]]:
    """Return (agent, artifact) of everything that was found damaged."""
    entries = api_of(lab).call("GET", f"/v1/entries?campaign={campaign}&limit=1000")
    found = [one for one in entries if one["step"].startswith("damaged@")]
    return [(one["step"].partition("@")[2], one["payload"]["sha256"]) for one in found]


async def report_of(lab: TestLab, agent: str) -> ArtifactReport:
    client = AgentClient(lab.url(agent), lab.token(agent))
    try:
        return await client.request_as(ArtifactReport, "GET", "/v1/artifact_report")
    finally:
        await client.close()


def assert_as_healthy(lab: TestLab, campaign: str, healthy: dict[str, Any]) -> None:
    """All that an undisturbed campaign must have in common with this one: hashes, outputs, answers, accuracy."""
    status = wait_for_end(lab, campaign)
    assert status["state"] == "finished", status["reason"]
    assert outcome_of(lab, campaign, CONFIGURATIONS) == {key: healthy[key] for key in ("answers", *CONFIGURATIONS)}


async def test_what_rotted_between_campaigns_is_found_before_the_first_load(
    lab: TestLab, healthy: dict[str, Any]
) -> None:
    """Nothing that the file system tells has changed, on the root and on the surgeon, whose copy heals the root's."""
    base, variant, statistics = healthy["base"], healthy["variant"], healthy["statistics"]
    for agent, sha256 in (("node1", base), ("node1", variant), ("surgeon", base), ("surgeon", statistics)):
        flip_byte_unseen(store(lab, agent) / sha256)
    start_campaign(lab, short_spec("rotten", ",".join(CONFIGURATIONS)))
    assert_as_healthy(lab, "rotten", healthy)
    assert sorted(damaged_in_journal(lab, "rotten")) == sorted(
        [("node1", base), ("node1", variant), ("surgeon", base), ("surgeon", statistics)]
    )
    status = api_of(lab).call("GET", "/v1/campaigns/rotten")
    assert [len(run["attempts"]) for run in status["runs"]] == [1, 1], "found before anything was loaded"
    for agent, wanted in (("node1", {base, variant}), ("surgeon", {base, statistics})):
        report = await report_of(lab, agent)
        assert {one.sha256 for one in report.damaged} == wanted
        assert all(hash_file(Path(one.file)) == one.found_sha256 != one.sha256 for one in report.damaged)
        for sha256 in wanted:
            assert hash_file(store(lab, agent) / sha256) == sha256
    told = {one["name"]: one for one in api_of(lab).call("GET", "/v1/lab")["agents"]}
    assert told["node1"]["health"]["status"] == "degraded"
    assert any(base[:12] in problem for problem in told["node1"]["health"]["problems"])
    listed = CliRunner().invoke(agents_cli, ["artifacts", "--out", str(lab.out)], env={"COLUMNS": "300"})
    assert listed.exit_code == 0 and f"node1: artifact {base} was found damaged" in listed.output, listed.output
    told_builds = CliRunner().invoke(agents_cli, ["agents", "--out", str(lab.out)], env={"COLUMNS": "300"})
    assert told_builds.exit_code == 0 and "llama.cpp" in told_builds.output and "surgeon" in told_builds.output
    assert "different" not in told_builds.output
    # And again, where no campaign needs the file: the scrub finds it.
    before = next(one for one in api_of(lab).call("GET", "/v1/lab/artifacts") if one["agent"] == "surgeon")
    flip_byte_unseen(store(lab, "surgeon") / base, 4)
    api_of(lab).call("POST", "/v1/lab/scrub")
    async with asyncio.timeout(60):
        while (report := await report_of(lab, "surgeon")).last_scrub is None:
            await asyncio.sleep(0.1)
    assert [one.sha256 for one in report.last_scrub.damaged] == [base] and report.last_scrub.n_left == 0
    assert report.last_scrub.n_hashed == before["report"]["n_artifacts"]
    assert not (store(lab, "surgeon") / base).exists()


@pytest.mark.parametrize(
    "step",
    [pytest.param("steady_state", marks=pytest.mark.slow), "decode", pytest.param("score", marks=pytest.mark.slow)],
)
def test_a_byte_that_flips_under_the_engine_costs_the_attempt(lab: TestLab, healthy: dict[str, Any], step: str) -> None:
    """The file is mapped into the engine's memory: what it answers after that is another model's."""
    variant = healthy["variant"]
    campaign = f"mapped-{step.replace('_', '-')}"
    start_campaign(lab, short_spec(campaign, ",".join(CONFIGURATIONS)))
    wait_for_step(lab, campaign, "drop2_all/rep-1", step)
    flip_byte(store(lab, "node1") / variant)
    assert_as_healthy(lab, campaign, healthy)
    assert damaged_in_journal(lab, campaign) == [("node1", variant)]
    runs = api_of(lab).call("GET", f"/v1/campaigns/{campaign}")["runs"]
    ((first, second),) = (run["attempts"] for run in runs if run["configuration"] == "drop2_all")
    assert first["outcome"] == "failed" and "changed on the disk while the engine served it" in first["reason"]
    assert second["outcome"] == "done"


@pytest.mark.slow
def test_a_byte_that_flips_on_the_surgeon_while_a_campaign_runs(lab: TestLab, healthy: dict[str, Any]) -> None:
    """The base that the variant is cut from, before it is cut: the surgeon sees it and makes the base again."""
    base = healthy["base"]
    spec = short_spec("surgeon-late", ",".join(CONFIGURATIONS)).model_copy(update={"pipeline_ahead": 0})
    start_campaign(lab, spec)
    wait_for_step(lab, "surgeon-late", "baseline/rep-1", "prefill")
    flip_byte(store(lab, "surgeon") / base)
    (store(lab, "node1") / healthy["variant"]).unlink()
    assert_as_healthy(lab, "surgeon-late", healthy)
    assert hash_file(store(lab, "surgeon") / base) == base
