"""Planned looks: taken once each, journaled, and the campaign's verdicts are those of its looks."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.campaign.interim import PlannedLooks
from orchestrator.domain.campaign.schedule import schedule
from orchestrator.domain.campaign.spec import CampaignSpec, LooksSpec, TasksSpec
from orchestrator.reports.summary import opening
from orchestrator.results.files import write_campaign
from orchestrator.results.read_model import load_results
from orchestrator.store.journal import open_journal
from tests.epi_campaign import write_campaign_tree


def spec(looks: LooksSpec | None, repetitions: int = 4) -> CampaignSpec:
    tasks = TasksSpec(mmlu_5shot="a", arc_challenge_25shot="b", hellaswag_10shot="c")
    return CampaignSpec(
        id="camp", model="m", corpus="c", tasks=tasks, configurations="baseline,drop1_all,drop8_all",
        repetitions=repetitions, looks=looks,
    )  # fmt: skip


def test_runs_are_parted_by_repetition_only_where_looks_are_planned() -> None:
    order = schedule(spec(None))
    assert PlannedLooks(None, spec(None), Path()).blocks(order) == [order]  # type: ignore[arg-type]
    blocks = PlannedLooks(None, spec(LooksSpec()), Path()).blocks(order)  # type: ignore[arg-type]
    assert [{run.repetition for run in block} for block in blocks] == [{1}, {2}, {3}, {4}]


def test_one_repetition_cannot_be_looked_at() -> None:
    with pytest.raises(ValidationError, match="looks need at least 2 repetitions"):
        CampaignSpec.model_validate(spec(None, 1).model_dump() | {"looks": {}})


async def test_a_look_is_taken_once_and_says_when_to_stop(tmp_path: Path) -> None:
    write_campaign_tree(tmp_path, "drop1_all,drop8_all", repetitions=2, saving=0.03)
    async with open_journal(tmp_path / "j.sqlite") as journal:
        await journal.create(spec(LooksSpec()))
        looks = PlannedLooks(journal, spec(LooksSpec()), tmp_path)
        assert not await looks.take(1) and looks.taken == ()
        assert not await looks.take(2)
        assert looks.taken[0].established == ("drop8_all",) and looks.taken[0].reason == "go on"
        # The third repetition is not there: nothing is decided, and what was established stays so.
        assert not await looks.take(3)
        assert looks.taken[1].established == ("drop8_all",) and "not whole" in looks.taken[1].reason

        precise = PlannedLooks(journal, spec(LooksSpec(precision=0.5)), tmp_path)
        assert not await precise.take(2), "the journal's answer stands: nobody looks twice"
        assert precise.taken == looks.taken[:1]


async def test_a_campaign_that_stopped_early_is_whole_and_names_only_what_its_looks_established(tmp_path: Path) -> None:
    write_campaign_tree(tmp_path, "drop1_all,drop8_all", repetitions=2, saving=0.03)
    async with open_journal(tmp_path / "j.sqlite") as journal:
        await journal.create(spec(LooksSpec(precision=0.5)))
        looks = PlannedLooks(journal, spec(LooksSpec(precision=0.5)), tmp_path)
        assert await looks.take(2)
    before = load_results(tmp_path)
    write_campaign(tmp_path, before.campaign.model_copy(update={"repetitions": 4, "looks": looks.taken}))
    after = load_results(tmp_path)
    assert after.repetitions == 2 and not any(finding.rule == "complete" for finding in after.validity.findings)
    verdicts = {name: result.comparison for name, result in after.results.items()}
    assert verdicts["drop8_all"] == before.results["drop8_all"].comparison != "not distinguishable"
    assert verdicts["drop1_all"] == "not distinguishable"
    assert any("Planned look after 2 of 4 repetitions: precise enough" in line for line in opening(after))
