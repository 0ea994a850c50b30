"""The journal: append-only, one writer, transitions, attempts; a kill at any line leaves committed data whole."""

import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from orchestrator.domain.campaign.accuracy_tasks import TasksSpec
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.store.journal import open_journal
from shared.kernel.errors import ConflictError, NotFoundError

RUN = RunReference.parse("baseline/rep-1")


def spec(**changes: object) -> CampaignSpec:
    tasks = TasksSpec(mmlu_5shot="a", arc_challenge_25shot="b", hellaswag_10shot="c")
    return CampaignSpec(id="camp", model="m", corpus="c", tasks=tasks).model_copy(update=changes)


async def test_the_same_spec_twice_is_one_campaign_and_another_is_refused(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "j.sqlite") as journal:
        await journal.create(spec())
        await journal.create(spec())
        assert len(await journal.campaigns()) == 1
        assert len(await journal.entries()) == 1
        with pytest.raises(ConflictError, match="another spec"):
            await journal.create(spec(repetitions=7))


async def test_transitions_follow_the_table(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "j.sqlite") as journal:
        await journal.create(spec())
        with pytest.raises(ConflictError, match="created cannot become finished"):
            await journal.set_state("camp", "finished")
        await journal.set_state("camp", "running")
        await journal.set_state("camp", "finished")
        with pytest.raises(ConflictError):
            await journal.set_state("camp", "running")
        with pytest.raises(NotFoundError):
            await journal.campaign("nobody")


async def test_attempts_are_all_kept(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "j.sqlite") as journal:
        await journal.create(spec())
        first = await journal.begin_attempt("camp", RUN)
        await journal.append("camp", kind="intent", run=RUN, attempt=first, step="decode")
        await journal.end_attempt("camp", RUN, first, "interrupted", reason="power cut")
        second = await journal.begin_attempt("camp", RUN)
        await journal.end_attempt("camp", RUN, second, "done")
        kept = (await journal.attempts("camp"))[RUN]
        assert [(a.number, a.outcome, a.step, a.reason) for a in kept] == [
            (1, "interrupted", "decode", "power cut"),
            (2, "done", "", ""),
        ]


async def test_entries_cannot_be_changed_or_removed(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    async with open_journal(path) as journal:
        await journal.create(spec())
    with sqlite3.connect(path) as db:
        for statement in ("UPDATE entry SET kind = 'x'", "DELETE FROM entry"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)
    db.close()


async def test_a_second_orchestrator_is_refused(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "j.sqlite"):
        with pytest.raises(ConflictError, match="another orchestrator"):
            async with open_journal(tmp_path / "j.sqlite"):
                pass


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(Exception, match="schema 99"):
        async with open_journal(path):
            pass


async def test_what_was_committed_survives_kill_9(tmp_path: Path) -> None:
    """A writer appends and prints each sequence number after its commit; it is killed; all printed ones are there."""
    program = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from orchestrator.store.journal import open_journal
        from tests.unit.test_store_journal import spec

        async def main():
            async with open_journal(Path(sys.argv[1])) as journal:
                await journal.create(spec())
                journal.listen(lambda entry: print(entry.seq, flush=True))
                while True:
                    await journal.append("camp", kind="intent", step="decode", payload={"n": 1})

        asyncio.run(main())
        """
    )
    path = tmp_path / "j.sqlite"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        seen = [int(writer.stdout.readline()) for _ in range(50)]
        writer.kill()
        seen += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
    async with open_journal(path) as journal:
        kept = [entry.seq for entry in await journal.entries(limit=100_000)]
    assert set(seen) <= set(kept)
    assert kept == list(range(1, len(kept) + 1))


async def test_an_attempt_has_one_outcome(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "j.sqlite") as journal:
        await journal.create(spec())
        number = await journal.begin_attempt("camp", RUN)
        await journal.end_attempt("camp", RUN, number, "interrupted", reason="power cut")
        with pytest.raises(ConflictError, match="interrupted cannot become done"):
            await journal.end_attempt("camp", RUN, number, "done")
        with pytest.raises(NotFoundError):
            await journal.end_attempt("camp", RUN, 7, "done")


async def test_what_broke_before_somebody_resumed_does_not_count(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "j.sqlite") as journal:
        await journal.create(spec())
        await journal.set_state("camp", "running")
        for reason in ("one", "two"):
            number = await journal.begin_attempt("camp", RUN)
            await journal.end_attempt("camp", RUN, number, "failed", reason=reason, fault="infrastructure")
        ended = await journal.since_running("camp", RUN, "", "attempt")
        assert [one["reason"] for one in ended if one.get("fault")] == ["one", "two"]
        await journal.set_state("camp", "failed", "two")
        await journal.set_state("camp", "running", "resumed by the user")
        assert await journal.since_running("camp", RUN, "", "attempt") == []
