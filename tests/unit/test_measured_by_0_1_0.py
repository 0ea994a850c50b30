"""A campaign that version 0.1.0 measured is read, recomputed, judged, reported and gone on with as before.

Byte for byte where no word was renamed; what was renamed is listed here and nowhere else.
"""

import json
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from orchestrator.api.views import campaign_status, campaign_summaries, configuration_results, run_detail
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.live import LiveBroadcaster
from orchestrator.campaign.service import CampaignService
from orchestrator.domain.analysis.interim import InterimAnalysis
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.schedule import schedule
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.campaign.steps import FORMER_STEPS, RUN_STEPS
from orchestrator.domain.run.records import RunInput
from orchestrator.reports.report import write_report
from orchestrator.reports.summary import write_summary
from orchestrator.results.files import list_runs, read_json, read_run
from orchestrator.results.read_model import load_results
from orchestrator.results.recompute import recompute_campaign, write_recomputed
from orchestrator.results.schema import BenchmarkFile, CampaignFile, EpiFile
from orchestrator.results.validate import validate_submission
from orchestrator.settings import OrchestratorSettings
from orchestrator.store.journal import Journal, open_journal
from orchestrator.store.records import Campaign
from shared.kernel.errors import DataError
from shared.kernel.settings import AgentAddress
from shared.wire.node_jobs.artifacts import FetchResult
from shared.wire.surgeon_jobs import ObserveResult, PlanResult, PrepareResult, ValidateResult
from shared.wire.surgeries import ApplyResult
from tests.support.measured_before import CAMPAIGN, N_RUNS, MeasuredBefore, unpack

RENAMED_IN_PROSE = {
    "Planned look after": "Interim analysis after",
    "what the looks established": "what the interim analyses established",
    "those of a single look.": "those of a single analysis.",
    "or the stillness before them": "or the gap before them",
    "The cheapest way that was possible.": "The cheapest method that was possible.",
    "| model | node | way | times |": "| model | node | method | times |",
}
"""What summary.md and report.md of version 0.1.0 say -> what they say now."""

RENAMED_RULES = {"silence": "agent_quiet", "settling": "gap_before_window", "stabilisation": "steady_state"}
"""Name of a validity rule in version 0.1.0 -> its name now."""


@pytest.fixture
def before(tmp_path: Path) -> MeasuredBefore:
    return unpack(tmp_path)


def renamed(text: str) -> str:
    for former, now in RENAMED_IN_PROSE.items():
        assert text.count(former) <= 1
        text = text.replace(former, now)
    return text


def test_every_file_is_read(before: MeasuredBefore) -> None:
    assert read_json(CampaignFile, before.tree / "campaign.json").campaign_id == CAMPAIGN
    kinds: dict[str, type[BaseModel]] = {"run": RunInput, "benchmark": BenchmarkFile, "epi": EpiFile}
    found = [path for path in sorted(before.tree.rglob("*.json")) if path.name != "campaign.json"]
    for path in found:
        read_json(kinds[path.name.partition("_")[0]], path)
    assert len(found) == 3 * N_RUNS == 3 * len(list(list_runs(before.tree)))


def test_no_run_differs_when_it_is_calculated_anew(before: MeasuredBefore) -> None:
    runs = list(recompute_campaign(before.tree))
    assert [run.differences for run in runs if run.written is not None] == [()] * N_RUNS
    said = json.loads(before.calculated.read_text())
    assert [
        (run.run.configuration, run.run.repetition, run.again.epi.value, run.again.evaluation.validity.verdict)
        for run in runs
    ] == [(one["configuration"], one["repetition"], one["epi"], one["validity"]) for one in said["runs"]]
    results = load_results(before.tree).results
    assert json.loads(json.dumps({n: r.model_dump(mode="json") for n, r in results.items()})) == said["results"]


@pytest.mark.parametrize("name", ["summary.md", "report.md"])
def test_prose_is_the_same_to_the_byte_but_for_renamed_words(before: MeasuredBefore, name: str) -> None:
    expected = renamed((before.tree / name).read_text())
    write_summary(before.tree)
    write_report(before.tree)
    assert (before.tree / name).read_text() == expected


def test_every_renamed_word_is_used(before: MeasuredBefore) -> None:
    text = (before.tree / "summary.md").read_text() + (before.tree / "report.md").read_text()
    assert [former for former in RENAMED_IN_PROSE if former not in text] == []


def test_the_judge_says_what_it_said(before: MeasuredBefore) -> None:
    said = json.loads(before.validated.read_text())["defects"]
    for one in said:
        rule, separator, reason = one["what"].partition(": ")
        one["what"] = RENAMED_RULES.get(rule, rule) + separator + reason
    defects = validate_submission(before.tree)
    assert [defect.model_dump(mode="json") for defect in defects] == said
    assert [defect.severity for defect in defects].count("FAIL") == 48 and len(defects) == 48 + 152


PUBLISHED = (
    "model", "quantization", "surgery", "hardware", "instrument", "measurement_point", "environment", "energy",
    "accuracy", "epi", "run_metadata",
)  # fmt: skip
"""The blocks that strangers' scripts read: every layout has them in this place."""

BESIDE = (
    "emulated", "token_basis", "no_epi_reason", "surgery_detail", "serving_detail", "instrument_detail", "provenance",
)  # fmt: skip

MOVED_INTO_EVALUATION = (
    "lag", "windows", "phases", "idle_watts", "epi_by_basis", "net_joules_per_token", "joules_per_question",
    "joules_per_correct", "question_energy", "uncertainty",
)  # fmt: skip


def test_files_written_anew_say_the_same(before: MeasuredBefore) -> None:
    """`epi calc --write` brings old files to today's layout; every published figure keeps its place and its value."""
    old = {path: json.loads(path.read_text()) for path in sorted(before.tree.rglob("epi_*.json"))}
    for run in recompute_campaign(before.tree):
        write_recomputed(before.tree, run)
    for path, document in old.items():
        now = json.loads(path.read_text())
        evaluation, accuracy = now["evaluation"], now["evaluation"]["accuracy"]
        assert (document["schema_version"], now["schema_version"]) == ("epi-result/1", "epi-result/2")
        assert [name for name in (*PUBLISHED, *BESIDE) if now[name] != document[name]] == []
        assert [name for name in MOVED_INTO_EVALUATION if evaluation[name] != document[name]] == []
        assert {label: phase["ledger"] for label, phase in evaluation["phases"].items()} == document["ledgers"]
        assert [
            name
            for name, value in document["accuracy_detail"].items()
            if value != accuracy.get(name, now["accuracy_detail"].get(name))
        ] == []
    assert [run.differences for run in recompute_campaign(before.tree)] == [()] * N_RUNS


def test_what_is_read_of_an_old_file_is_what_is_calculated_today(before: MeasuredBefore) -> None:
    for run in recompute_campaign(before.tree):
        assert run.written is not None
        findings = [
            finding.model_copy(update={"rule": RENAMED_RULES.get(finding.rule, finding.rule)})
            for finding in run.written.evaluation.validity.findings
        ]
        validity = run.written.evaluation.validity.model_copy(update={"findings": tuple(findings)})
        evaluation = run.written.evaluation.model_copy(update={"validity": validity})
        assert run.written.model_copy(update={"evaluation": evaluation}) == run.again


def test_an_old_file_whose_blocks_were_changed_is_refused(before: MeasuredBefore) -> None:
    path = before.tree / "baseline" / "epi_001.json"
    document = json.loads(path.read_text())
    document["epi"]["value"] *= 1.001
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"epi\.value does not follow from the evaluation"):
        read_json(EpiFile, path)
    (found,) = next(iter(recompute_campaign(before.tree))).differences
    assert "epi.value" in found
    document["energy"]["total_joules"] = "many"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"energy\.total_joules: Input should be a valid number"):
        read_json(EpiFile, path)


@pytest.fixture
async def journal(before: MeasuredBefore) -> AsyncIterator[Journal]:
    async with open_journal(before.journal) as opened:
        yield opened


@pytest.fixture
async def service(journal: Journal, before: MeasuredBefore) -> AsyncIterator[CampaignService]:
    """The campaign service on the old journal; its agents are away, and nothing here asks them."""
    away = "http://127.0.0.1:9"
    lab = Lab(
        OrchestratorSettings(
            name="orchestrator", port=1, state_dir=before.journal.parent, results_dir=before.tree.parent,
            nodes=tuple(AgentAddress(name=f"node{i}", url=away) for i in range(1, 5)),
            surgeon=AgentAddress(name="surgeon", url=away), meter=AgentAddress(name="meter", url=away),
            workload_prompts=before.tree / "prompts.txt",
        )
    )  # fmt: skip
    yield CampaignService(journal, lab, LiveBroadcaster())
    await lab.close()


async def test_the_journal_opens_and_lists_the_campaign(service: CampaignService) -> None:
    (summary,) = await campaign_summaries(service, await service.journal.campaigns())
    assert (summary.id, summary.state, summary.runs_done, summary.runs_total) == (
        CAMPAIGN, "finished", N_RUNS, N_RUNS,
    )  # fmt: skip
    status = await campaign_status(service, await service.journal.campaign(CAMPAIGN))
    assert {run.state for run in status.runs} == {"done"} and len(status.runs) == N_RUNS
    assert [attempt.step for run in status.runs for attempt in run.attempts] == ["evaluate"] * N_RUNS
    assert len(status.interim_analyses) == 2 and status.utilisation is not None
    assert {(one.node, one.method) for one in status.deliveries} >= {("node1", "http"), ("node1", "here")}


async def test_its_results_and_runs_are_shown(service: CampaignService) -> None:
    campaign = await service.journal.campaign(CAMPAIGN)
    results = await configuration_results(service, campaign.id)
    assert [one.configuration.id for one in results][:2] == ["baseline", "baseline_biased"] and len(results) == 7
    detail = await run_detail(service, campaign, RunReference.parse("baseline.n2/rep-3"))
    assert detail.status.state == "done" and detail.epi is not None
    files = read_run(service.lab.settings.results_dir / CAMPAIGN, RunReference.parse("baseline.n2/rep-3"))
    assert detail.epi["epi"]["value"] == files.epi.epi.value == pytest.approx(0.01129, rel=1e-3)


async def test_steps_have_their_names_of_today(journal: Journal) -> None:
    entries = await journal.entries(limit=10_000)
    steps = {entry.step.partition("@")[0] for entry in entries}
    assert not steps & {*FORMER_STEPS, "look"}
    assert steps >= {*RUN_STEPS, "fetch_base", "interim_analysis"}
    assert len(entries) == 426


async def test_its_spec_is_the_spec_it_was(journal: Journal) -> None:
    campaign = await journal.campaign(CAMPAIGN)
    assert campaign.spec.spec_hash() == campaign.spec_hash
    again = await journal.create(CampaignSpec.model_validate_json(campaign.spec.model_dump_json()))
    assert again == campaign, "the same spec is the same campaign"


async def test_it_may_be_resumed_and_nothing_is_done_twice(before: MeasuredBefore, tmp_path: Path) -> None:
    """A copy that was paused is set running; all that the runner looks for in the journal is found and understood."""
    paused = tmp_path / "paused.sqlite"
    shutil.copy(before.journal, paused)
    with sqlite3.connect(paused) as db:
        db.execute("UPDATE campaign SET state = 'paused'")
    db.close()
    async with open_journal(paused) as journal:
        await journal.create((await journal.campaign(CAMPAIGN)).spec)
        await journal.set_state(CAMPAIGN, "running", "resumed by the user")
        (campaign,) = await journal.running()
        found: dict[tuple[str, str], type[BaseModel]] = {
            ("", "prepare@surgeon"): PrepareResult,
            ("", "observe@surgeon"): ObserveResult,
            ("", "fetch_base@node1"): FetchResult,
            ("rep-2", "interim_analysis"): InterimAnalysis,
            ("rep-3", "interim_analysis"): InterimAnalysis,
        }
        assert isinstance(campaign, Campaign)
        for configuration in {run.configuration.id for run in schedule(campaign.spec)}:
            found[configuration, "plan@surgeon"] = PlanResult
            found[configuration, "apply@surgeon"] = ApplyResult
            found[configuration, "validate@surgeon"] = ValidateResult
        for (run, step), model in found.items():
            payload = await journal.last_result(CAMPAIGN, run, step)
            assert payload is not None, (run, step)
            model.model_validate(payload)
        assert isinstance(campaign, Campaign)
        for planned in schedule(campaign.spec):
            assert await journal.last_result(CAMPAIGN, planned.run, "evaluate") is not None
