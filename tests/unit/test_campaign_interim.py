"""Interim analyses: made once each, journaled, and the campaign's verdicts are theirs."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.campaign.interim import InterimAnalyses
from orchestrator.domain.campaign.accuracy_tasks import TasksSpec
from orchestrator.domain.campaign.schedule import schedule
from orchestrator.domain.campaign.spec import CampaignSpec, InterimAnalysesSpec
from orchestrator.reports.summary import opening
from orchestrator.results.files import write_campaign
from orchestrator.results.read_model import load_results
from orchestrator.store.journal import open_journal
from tests.support.epi_campaign import write_campaign_tree


def spec(interim_analyses: InterimAnalysesSpec | None, repetitions: int = 4) -> CampaignSpec:
    tasks = TasksSpec(mmlu_5shot="a", arc_challenge_25shot="b", hellaswag_10shot="c")
    return CampaignSpec(
        id="camp", model="m", corpus="c", tasks=tasks, configurations="baseline,drop1_all,drop8_all",
        repetitions=repetitions, interim_analyses=interim_analyses,
    )  # fmt: skip


def test_runs_are_parted_by_repetition_only_where_looks_are_planned() -> None:
    order = schedule(spec(None))
    assert InterimAnalyses(None, spec(None), Path()).blocks(order) == [order]  # type: ignore[arg-type]
    blocks = InterimAnalyses(None, spec(InterimAnalysesSpec()), Path()).blocks(order)  # type: ignore[arg-type]
    assert [{run.repetition for run in block} for block in blocks] == [{1}, {2}, {3}, {4}]


def test_one_repetition_cannot_be_analysed() -> None:
    with pytest.raises(ValidationError, match="interim_analyses needs at least 2 repetitions"):
        CampaignSpec.model_validate(spec(None, 1).model_dump() | {"interim_analyses": {}})


async def test_a_look_is_taken_once_and_says_when_to_stop(tmp_path: Path) -> None:
    write_campaign_tree(tmp_path, "drop1_all,drop8_all", repetitions=2, saving=0.03)
    async with open_journal(tmp_path / "j.sqlite") as journal:
        await journal.create(spec(InterimAnalysesSpec()))
        interim_analyses = InterimAnalyses(journal, spec(InterimAnalysesSpec()), tmp_path)
        assert not await interim_analyses.take(1) and interim_analyses.taken == ()
        assert not await interim_analyses.take(2)
        assert interim_analyses.taken[0].established == ("drop8_all",) and interim_analyses.taken[0].reason == "go on"  # type: ignore[misc]
        # The third repetition is not there: nothing is decided, and what was established stays so.
        assert not await interim_analyses.take(3)
        assert (
            interim_analyses.taken[1].established == ("drop8_all",) and "not whole" in interim_analyses.taken[1].reason  # type: ignore[misc]
        )

        precise = InterimAnalyses(journal, spec(InterimAnalysesSpec(precision=0.5)), tmp_path)
        assert not await precise.take(2), "the journal's answer stands: nobody interim_analyses twice"
        assert precise.taken == interim_analyses.taken[:1]


async def test_a_campaign_that_stopped_early_is_whole_and_names_only_what_its_looks_established(tmp_path: Path) -> None:
    write_campaign_tree(tmp_path, "drop1_all,drop8_all", repetitions=2, saving=0.03)
    async with open_journal(tmp_path / "j.sqlite") as journal:
        await journal.create(spec(InterimAnalysesSpec(precision=0.5)))
        interim_analyses = InterimAnalyses(journal, spec(InterimAnalysesSpec(precision=0.5)), tmp_path)
        assert await interim_analyses.take(2)
    before = load_results(tmp_path)
    write_campaign(
        tmp_path, before.campaign.model_copy(update={"repetitions": 4, "interim_analyses": interim_analyses.taken})
    )
    after = load_results(tmp_path)
    assert after.repetitions == 2 and not any(finding.rule == "complete" for finding in after.validity.findings)
    verdicts = {name: result.comparison for name, result in after.results.items()}
    assert verdicts["drop8_all"] == before.results["drop8_all"].comparison != "not distinguishable"
    assert verdicts["drop1_all"] == "not distinguishable"
    assert any("Interim analysis after 2 of 4 repetitions: precise enough" in line for line in opening(after))
