"""The journal's verified copies, and what comes back when the journal itself is damaged or gone: everything."""

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomli_w
from typer.testing import CliRunner

from orchestrator.campaign.restoring import Restored, restore_journal
from orchestrator.campaign.safekeeping import JournalKeeper
from orchestrator.cli.journal import app
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.store.copies import KEPT, JournalCopies, damage_of
from orchestrator.store.journal import open_journal
from orchestrator.store.records import Attempt
from orchestrator.store.tables import SUMMED
from shared.kernel.clock import NS_PER_S
from shared.kernel.errors import BugError, ConflictError, DataError
from shared.service.daemon import LOCK_NAME
from shared.service.health import HealthRegistry
from shared.service.lock import held_alone
from tests.support.by_hand import by_hand
from tests.support.measured_before import CAMPAIGN, N_RUNS, unpack

NOW = 1_800_000_000 * NS_PER_S
RUNS_IN_THE_COPY = 9


@dataclass(frozen=True)
class Lab:
    """An orchestrator's folders: a real campaign's journal and results, and a copy of the journal from its middle."""

    state: Path
    results: Path
    told: object
    """What the journal said before it was damaged."""

    @property
    def journal(self) -> Path:
        return self.state / "journal.sqlite"

    @property
    def copies(self) -> JournalCopies:
        return JournalCopies(self.journal)

    def restore(self) -> Restored:
        return restore_journal(self.state, self.results)


def told(path: Path) -> tuple[str, dict[str, object], dict[RunReference, list[Attempt]], int]:
    """Return the campaign's state, the figures of its runs, its attempts and the number of its entries."""

    async def ask() -> tuple[str, dict[str, object], dict[RunReference, list[Attempt]], int]:
        async with open_journal(path) as journal:
            results = await journal.results(CAMPAIGN, "evaluate")
            return (
                (await journal.campaign(CAMPAIGN)).state, dict(results["evaluate"]), await journal.attempts(CAMPAIGN),
                len(await journal.entries(0, 100_000)),
            )  # fmt: skip

    return asyncio.run(ask())


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    before = unpack(tmp_path / "unpacked")
    state = tmp_path / "state"
    state.mkdir()
    lab = Lab(state, before.tree.parent, told(before.journal))
    shutil.copy(before.journal, lab.journal)
    with by_hand(lab.journal, SUMMED) as db:  # as it was in the middle of the campaign
        (end,) = db.execute(
            "SELECT seq FROM entry WHERE step = 'evaluate' AND kind = 'result' ORDER BY seq LIMIT 1 OFFSET ?",
            (RUNS_IN_THE_COPY,),
        ).fetchone()
        trigger = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'entry_is_kept'").fetchone()[0]
        db.execute("DROP TRIGGER entry_is_kept")
        db.execute("DELETE FROM attempt WHERE started_utc_ns > (SELECT utc_ns FROM entry WHERE seq = ?)", (end,))
        db.execute(
            "UPDATE attempt SET outcome = NULL WHERE ended_utc_ns > (SELECT utc_ns FROM entry WHERE seq = ?)", (end,)
        )
        db.execute("DELETE FROM entry WHERE seq >= ?", (end,))
        db.execute("UPDATE campaign SET state = 'running'")
        db.execute(trigger)
    lab.copies.make(NOW)
    shutil.copy(before.journal, lab.journal)
    return lab


def flip(path: Path, text: bytes) -> None:
    """Flip one bit of a text that stands in the file."""
    body = bytearray(path.read_bytes())
    at = body.index(text)
    body[at] ^= 1
    path.write_bytes(body)


def test_copies_are_few_sound_and_not_made_too_often(lab: Lab) -> None:
    copies = lab.copies
    pause_ns = 60 * NS_PER_S
    assert not copies.is_due(NOW + pause_ns - 1) and copies.is_due(NOW + pause_ns)
    assert copies.is_due(NOW + 1, since_utc_ns=NOW + 1), "a campaign that no copy knows"
    for number in range(1, 6):
        copies.make(NOW + number)
    kept = copies.newest_first()
    assert [copy.utc_ns - NOW for copy in kept] == [5, 4, 3] and len(kept) == KEPT
    assert [damage_of(copy.path) for copy in kept] == [None] * KEPT
    assert {path.name for path in copies.folder.iterdir()} == {copy.path.name for copy in kept}
    with lab.journal.open("r+b") as file:
        file.truncate(12 << 20)  # the larger, the rarer
    assert not copies.is_due(NOW + 300 * NS_PER_S) and copies.is_due(NOW + 900 * NS_PER_S)


async def test_damage_found_while_copying_is_told_and_costs_no_copy(lab: Lab) -> None:
    flip(lab.journal, b'"epi":')
    health = HealthRegistry()
    keeper = JournalKeeper(lab.copies, health, lambda: False)
    with pytest.raises(DataError, match=r"the journal is damaged: row \d+ of table entry") as refused:
        await keeper.keep(since_utc_ns=NOW + 1)
    assert "epi journal restore" in refused.value.hint
    assert health.status == "failing" and str(lab.journal) in health.problems()[0]
    assert [copy.utc_ns for copy in lab.copies.newest_first()] == [NOW]
    with pytest.raises(BugError):
        await JournalKeeper(lab.copies, health, lambda: True).keep()


def test_one_flipped_bit_costs_nothing(lab: Lab) -> None:
    flip(lab.journal, b'"epi":')
    done = lab.restore()
    assert done.aside is not None and b'"epi"' in (done.aside / "journal.sqlite").read_bytes()
    assert told(lab.journal)[:3] == lab.told[:3]  # type: ignore[index]
    assert done.imported == () and done.salvaged.entries > 50


def test_a_journal_that_nobody_can_read_comes_back_from_copy_and_results(lab: Lab) -> None:
    lab.journal.write_bytes(b"\0" * lab.journal.stat().st_size)
    done = lab.restore()
    assert len(done.imported) == N_RUNS - RUNS_IN_THE_COPY
    state, figures, attempts, _ = told(lab.journal)
    assert (state, figures) == ("paused", lab.told[1])  # type: ignore[index]
    assert [one.outcome for each in attempts.values() for one in each] == ["done"] * N_RUNS
    assert len(attempts) == N_RUNS


async def test_what_comes_after_has_numbers_that_no_lost_attempt_had(lab: Lab) -> None:
    lab.journal.unlink()
    await asyncio.to_thread(lab.restore)
    async with open_journal(lab.journal) as journal:
        campaign = await journal.campaign(CAMPAIGN)
        assert "the journal was restored from its copy of 2027-01-15" in campaign.reason
        (run, *_) = await journal.attempts(CAMPAIGN)
        assert await journal.begin_attempt(CAMPAIGN, run) > 100
        assert await journal.begin_attempt(CAMPAIGN, run) > 101


def test_a_measured_run_that_waits_is_opened_again(lab: Lab) -> None:
    lab.journal.unlink()
    (configuration,) = {run.configuration for run in told_runs(lab)} & {"baseline"}
    shutil.rmtree(lab.results / CAMPAIGN / configuration)
    waiting = lab.state / "pending" / CAMPAIGN / configuration / "rep-3.attempt-1.json"
    waiting.parent.mkdir(parents=True)
    waiting.write_text("{}")
    done = lab.restore()
    assert done.waiting == (f"{CAMPAIGN}/{configuration}/rep-3/attempt-1",)
    (attempt,) = told(lab.journal)[2][RunReference(configuration=configuration, repetition=3)]
    assert (attempt.number, attempt.outcome, attempt.step) == (1, None, "evaluate")


def told_runs(lab: Lab) -> list[RunReference]:
    return list(lab.told[2])  # type: ignore[index]


def test_a_damaged_copy_is_passed_over_and_without_a_sound_one_nothing_is_done(lab: Lab) -> None:
    newer = lab.copies.make(NOW + 1)
    flip(newer.path, b'"epi":')
    damaged = lab.journal.read_bytes()[:-1000]
    lab.journal.write_bytes(damaged)
    done = lab.restore()
    assert done.copy.utc_ns == NOW and str(newer.path) in done.notes[0]
    lab.journal.write_bytes(damaged)
    flip(done.copy.path, b'"epi":')
    with pytest.raises(DataError, match="no sound copy") as refused:
        lab.restore()
    assert "epi-backup restore" in refused.value.hint
    assert lab.journal.read_bytes() == damaged


def test_an_orchestrator_that_runs_is_not_robbed(lab: Lab) -> None:
    before = lab.journal.read_bytes()
    with held_alone(lab.state / LOCK_NAME, "orchestrator"), pytest.raises(ConflictError, match="another orchestrator"):
        lab.restore()
    assert lab.journal.read_bytes() == before


def test_the_commands(lab: Lab, tmp_path: Path) -> None:
    config = tmp_path / "orchestrator.toml"
    away = {"name": "node1", "url": "http://127.0.0.1:9"}
    config.write_text(
        tomli_w.dumps(
            {
                "name": "orchestrator", "port": 1, "state_dir": str(lab.state), "results_dir": str(lab.results),
                "nodes": [away], "surgeon": away | {"name": "surgeon"}, "meter": away | {"name": "meter"},
                "workload_prompts": "prompts.txt",
            }
        )
    )  # fmt: skip

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*words, "--config", str(config)])
        return result.exit_code, result.output

    told(lab.journal)  # an earlier version's journal gets its checksums
    assert run("check")[0] == 0
    flip(lab.journal, b'"epi":')
    code, text = run("check", "--json")
    assert code == 1 and "is not as it was written" in json.loads(text)["damage"]
    assert "sound" in run("copies")[1]
    code, text = run("restore")
    assert code == 0 and "the damaged journal is kept in" in text, text
    assert run("check")[0] == 0
