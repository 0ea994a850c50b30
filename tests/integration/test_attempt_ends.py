"""The reason of an attempt that a full disk broke outlives the orchestrator, though the journal took nothing."""

from pathlib import Path

import pytest

from orchestrator.campaign.attempt_ends import AttemptEnds
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.open_attempts import close_open_attempts
from orchestrator.campaign.pending import PendingEvaluations
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.settings import OrchestratorSettings
from orchestrator.store.journal import open_journal
from shared.files.reserved_note import ReservedNote
from shared.kernel.settings import AgentAddress
from tests.support.small_disk import small_disk
from tests.unit.test_store_journal import spec

RUN = RunReference.parse("baseline/rep-1")
REASON = "prefill on node1: the journal cannot be written: the disk is full"


def lab_of(state: Path) -> Lab:
    away = "http://127.0.0.1:9"
    return Lab(
        OrchestratorSettings(
            name="orchestrator", port=1, state_dir=state, results_dir=state, nodes=(AgentAddress(name="n", url=away),),
            surgeon=AgentAddress(name="s", url=away), meter=AgentAddress(name="m", url=away), workload_prompts=state,
        )
    )  # fmt: skip


@pytest.mark.mounts
async def test_the_reason_as_it_was(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state", 4) as disk:
        path = disk.path / "journal.sqlite"
        async with open_journal(path) as journal:
            await journal.create(spec())
            numbers = [await journal.begin_attempt("camp", RUN) for _ in range(3)]
            ends = AttemptEnds(journal, "camp", disk.path)
            ends.reserve()
            disk.fill()
            await ends.end(RUN, numbers[0], "failed", reason=REASON, fault="infrastructure", wait=False)
            await ends.end(RUN, numbers[1], "interrupted", reason="stopped in order", wait=False)
        disk.empty()
        async with open_journal(path) as journal:
            lab, ends = lab_of(disk.path), AttemptEnds(journal, "camp", disk.path)
            kept = PendingEvaluations(disk.path, "camp")
            assert await close_open_attempts(journal, lab, "camp", kept, ends) == []
            found = (await journal.attempts("camp"))[RUN]
            await lab.close()
            assert [ends.noted(RUN, number) for number in numbers] == [None] * 3
    assert [(one.outcome, one.reason, one.fault) for one in found] == [
        ("failed", REASON, "infrastructure"),
        ("interrupted", "stopped in order", ""),
        ("interrupted", "the orchestrator died during the start", "infrastructure"),
    ]


def test_a_note_is_whole_or_none(tmp_path: Path) -> None:
    note = ReservedNote(tmp_path / "note", 100)
    assert note.read() is None and not note.write("no room was taken")
    note.reserve()
    assert note.read() is None
    assert note.write("zwölf Zeichen") and note.read() == "zwölf Zeichen"
    note.reserve()
    assert note.read() == "zwölf Zeichen" and not note.write("x" * 100) and note.read() == "zwölf Zeichen"
    body = bytearray(note.path.read_bytes())
    body[30] ^= 1
    note.path.write_bytes(body)
    assert note.read() is None
    note.clear()
    assert note.read() == "" and note.path.stat().st_size == 100
