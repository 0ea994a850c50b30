"""`epi-backup`: save while daemons write, check, restore; nothing is overwritten, nothing damaged is accepted."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "systemd" / "epi-backup"


def backup(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, *argv], capture_output=True, text=True, timeout=120)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    for name in ("orchestrator/results/paper", "meter-bridge", "node-agent/artifacts"):
        (state / name).mkdir(parents=True)
    (state / "orchestrator").chmod(0o700)
    (state / "orchestrator/results/paper/campaign.json").write_text("{}")
    (state / "node-agent/artifacts/model.gguf").write_bytes(b"big")
    with closing(sqlite3.connect(state / "orchestrator/journal.sqlite", isolation_level=None)) as journal:
        journal.execute("PRAGMA journal_mode=WAL")
        journal.execute("CREATE TABLE entry (seq INTEGER PRIMARY KEY, pair INTEGER)")
    return state


def test_a_backup_taken_while_the_journal_is_written_is_whole_and_comes_back(state: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(state / "orchestrator/journal.sqlite", isolation_level=None)) as journal:
            while not stop.is_set():
                journal.execute("BEGIN IMMEDIATE")
                journal.execute("INSERT INTO entry (pair) VALUES (1)")
                journal.execute("INSERT INTO entry (pair) VALUES (2)")
                journal.execute("COMMIT")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        saved = backup("save", tmp_path, "--state", state)
    finally:
        stop.set()
        writer.join()
    assert saved.returncode == 0, saved.stderr
    archive = Path(saved.stdout.strip())
    assert "1 databases, all sound" in backup("check", archive).stdout

    restored = tmp_path / "restored"
    done = backup("restore", archive, "--state", restored)
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(restored / "orchestrator/journal.sqlite")) as journal:
        ones, twos = (
            journal.execute("SELECT count(*) FROM entry WHERE pair = ?", (pair,)).fetchone()[0] for pair in (1, 2)
        )
    assert ones == twos > 0, "a transaction was cut in two"
    assert (restored / "orchestrator/results/paper/campaign.json").read_text() == "{}"
    assert (restored / "orchestrator").stat().st_mode & 0o777 == 0o700, "a folder's rights come back as well"
    assert not (restored / "node-agent/artifacts").exists(), "models are made again, not saved"


def test_restore_refuses_to_overwrite_and_to_accept_damage(state: Path, tmp_path: Path) -> None:
    archive = Path(backup("save", tmp_path, "--state", state).stdout.strip())

    onto = backup("restore", archive, "--state", state)
    assert onto.returncode == 1
    assert "is not empty" in onto.stderr

    archive.write_bytes(archive.read_bytes()[:-40])
    damaged = backup("check", archive)
    assert damaged.returncode == 1
    assert "damaged" in damaged.stderr


def test_a_damaged_database_is_not_saved_silently(state: Path, tmp_path: Path) -> None:
    path = state / "meter-bridge/traces.sqlite"
    with closing(sqlite3.connect(path)) as traces:
        traces.execute("CREATE TABLE sample (w REAL)")
        traces.executemany("INSERT INTO sample VALUES (?)", [(float(number),) for number in range(5000)])
        traces.commit()
    body = bytearray(path.read_bytes())
    body[4096 * 3 : 4096 * 4] = b"\xff" * 4096
    path.write_bytes(body)

    saved = backup("save", tmp_path, "--state", state)

    assert saved.returncode == 1
    assert "traces.sqlite" in saved.stderr
