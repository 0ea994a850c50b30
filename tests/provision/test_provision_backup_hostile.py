"""`epi-backup check` and `restore` on archives that `epi-backup save` never wrote: refused, and nothing is touched."""

import io
import os
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.provision.test_provision_backup import TOOL, backup

Fill = Callable[[tarfile.TarFile, Path], None]


def add(archive: tarfile.TarFile, name: str, body: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: object) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, len(body)
    for field, value in more.items():
        setattr(entry, field, value)
    archive.addfile(entry, io.BytesIO(body))


def hard_link_then_file(archive: tarfile.TarFile, victim: Path) -> None:
    add(archive, "x", kind=tarfile.LNKTYPE, linkname=str(victim))
    add(archive, "x", b"overwritten")


def link_then_file_through_it(archive: tarfile.TarFile, victim: Path) -> None:
    add(archive, "x", kind=tarfile.SYMTYPE, linkname=str(victim.parent))
    add(archive, f"x/{victim.name}", b"overwritten")


def absolute(archive: tarfile.TarFile, victim: Path) -> None:
    add(archive, str(victim), b"overwritten")


def climbing(archive: tarfile.TarFile, victim: Path) -> None:
    add(archive, "up", kind=tarfile.DIRTYPE, mode=0o755)
    add(archive, "up/../../" + victim.name, b"overwritten")


def in_no_folder(archive: tarfile.TarFile, victim: Path) -> None:
    add(archive, "nowhere/x", b"x")


def in_a_file(archive: tarfile.TarFile, victim: Path) -> None:
    add(archive, "x", b"x")
    add(archive, "x/y", b"y")


def twice(archive: tarfile.TarFile, victim: Path) -> None:
    add(archive, "x", b"1")
    add(archive, "x", b"2")


def fifo(archive: tarfile.TarFile, victim: Path) -> None:
    add(archive, "x", kind=tarfile.FIFOTYPE)


def device(archive: tarfile.TarFile, victim: Path) -> None:
    add(archive, "x", kind=tarfile.CHRTYPE, devmajor=1, devminor=5)


def sparse(archive: tarfile.TarFile, victim: Path) -> None:
    """Half a kilobyte that says it is a terabyte (PAX sparse 0.1)."""
    pax = {"GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,0"}
    add(archive, "x", pax_headers=pax)


def negative(archive: tarfile.TarFile, victim: Path) -> None:
    add(archive, "x", pax_headers={"size": "-1024"})


def large_header(archive: tarfile.TarFile, victim: Path) -> None:
    add(archive, "x", pax_headers={"comment": "c" * (1 << 20)})


def headers_of_headers(archive: tarfile.TarFile, victim: Path) -> None:
    assert archive.fileobj is not None
    for _ in range(3000):
        entry = tarfile.TarInfo("x")
        entry.type = tarfile.XHDTYPE
        archive.fileobj.write(entry.tobuf(tarfile.USTAR_FORMAT))


def bomb(archive: tarfile.TarFile, victim: Path) -> None:
    entry = tarfile.TarInfo("x")
    entry.size = 512 << 20
    with Path("/dev/zero").open("rb") as zeros:
        archive.addfile(entry, zeros)


def no_time(archive: tarfile.TarFile, victim: Path) -> None:
    add(archive, "x", pax_headers={"mtime": "nan"})


def escapes(archive: tarfile.TarFile, victim: Path) -> None:
    add(archive, "\x1b]0;owned\x07", kind=tarfile.FIFOTYPE)


HOSTILE = (
    hard_link_then_file, link_then_file_through_it, absolute, climbing, in_no_folder, in_a_file, twice, fifo, device,
    sparse, negative, large_header, headers_of_headers, bomb, escapes,
)  # fmt: skip


@pytest.mark.parametrize("fill", HOSTILE, ids=lambda fill: str(fill.__name__))
def test_a_hostile_archive_is_refused_and_touches_nothing(tmp_path: Path, fill: Fill) -> None:
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    file, state = tmp_path / "hostile.tar.gz", tmp_path / "state"
    with tarfile.open(file, "w:gz", compresslevel=6) as archive:
        fill(archive, victim)

    for answer in (backup("check", file), backup("restore", file, "--state", state)):
        assert answer.returncode == 1
        assert "damaged or no backup" in answer.stderr and "Traceback" not in answer.stderr
        assert "\x1b" not in answer.stderr + answer.stdout
    assert victim.read_text() == "as it was"
    assert not state.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.tar.gz", "victim"]


def test_a_time_that_is_none_ends_in_a_sentence_and_leaves_no_half_a_state(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "hostile.tar.gz", "w:gz") as archive:
        no_time(archive, tmp_path)
    answer = backup("restore", tmp_path / "hostile.tar.gz", "--state", tmp_path / "state")
    assert answer.returncode == 1 and "damaged or no backup" in answer.stderr
    assert list((tmp_path / "state").iterdir()) == []


def test_a_bomb_stops_within_its_limit_and_the_limit_can_be_raised(tmp_path: Path) -> None:
    file = tmp_path / "zeros.tar.gz"
    with tarfile.open(file, "w:gz", compresslevel=1) as archive:
        add(archive, "x", bytes(8 << 20))
    refused = backup("check", file, "--max-gib", "0.005")
    assert refused.returncode == 1 and "--max-gib" in refused.stderr
    assert backup("check", file, "--max-gib", "0.01").returncode == 0


def test_no_right_comes_back_that_only_root_may_give(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "rights.tar.gz", "w:gz") as archive:
        add(archive, "open", kind=tarfile.DIRTYPE, mode=0o1777)
        add(archive, "open/program", b"#!/bin/sh\n", mode=0o6777)
    assert backup("restore", tmp_path / "rights.tar.gz", "--state", tmp_path / "state").returncode == 0
    for path in (tmp_path / "state/open", tmp_path / "state/open/program"):
        assert path.stat().st_mode & 0o7777 == 0o755


def test_a_link_in_the_state_folder_is_no_way_out_of_it(tmp_path: Path) -> None:
    """A daemon's user may own a folder below the state; what root restores must not leave by it."""
    outside, state = tmp_path / "outside", tmp_path / "state"
    outside.mkdir()
    state.mkdir()
    (state / "orchestrator").symlink_to(outside)
    with tarfile.open(tmp_path / "fair.tar.gz", "w:gz") as archive:
        add(archive, "orchestrator", kind=tarfile.DIRTYPE, mode=0o755)
        add(archive, "orchestrator/file", b"x")
    answer = backup("restore", tmp_path / "fair.tar.gz", "--state", state)
    assert answer.returncode == 1 and "is not empty" in answer.stderr
    assert list(outside.iterdir()) == []


def test_empty_folders_of_a_fresh_installation_give_way(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "orchestrator/results").mkdir(parents=True)
    with tarfile.open(tmp_path / "fair.tar.gz", "w:gz") as archive:
        add(archive, "orchestrator", kind=tarfile.DIRTYPE, mode=0o700)
        add(archive, "orchestrator/file", b"x", mtime=1_700_000_000)
    assert backup("restore", tmp_path / "fair.tar.gz", "--state", state).returncode == 0
    assert (state / "orchestrator/file").read_bytes() == b"x"
    assert (state / "orchestrator/file").stat().st_mtime == 1_700_000_000
    assert [path.name for path in state.iterdir()] == ["orchestrator"]


def test_two_names_of_one_file_are_saved_as_two_files(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "a").write_text("same")
    os.link(state / "a", state / "b")
    archive = Path(backup("save", tmp_path, "--state", state).stdout.strip())
    assert backup("restore", archive, "--state", tmp_path / "again").returncode == 0
    assert (tmp_path / "again/b").read_text() == "same"


def test_a_database_is_found_whatever_its_name_says(tmp_path: Path) -> None:
    """SQLite takes a URI: a question mark in a name must not become its parameters."""
    state = tmp_path / "state"
    state.mkdir()
    with closing(sqlite3.connect(state / "jobs?mode=memory#%41.sqlite")) as database:
        database.execute("CREATE TABLE job (id)")
        database.commit()
    saved = backup("save", tmp_path, "--state", state)
    assert saved.returncode == 0, saved.stderr
    assert backup("restore", saved.stdout.strip(), "--state", tmp_path / "again").returncode == 0
    with closing(sqlite3.connect(tmp_path / "again/jobs?mode=memory#%41.sqlite")) as database:
        assert database.execute("SELECT name FROM sqlite_schema").fetchall() == [("job",)]


def test_a_database_damaged_in_the_archive_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "damaged.tar.gz", "w:gz") as archive:
        add(archive, "journal.sqlite", b"SQLite format 3\0" + b"\xff" * 8000)
    answer = backup("check", tmp_path / "damaged.tar.gz")
    assert answer.returncode == 1 and "journal.sqlite is damaged" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_checking_takes_no_memory_for_what_an_archive_claims(tmp_path: Path) -> None:
    file = tmp_path / "bomb.tar.gz"
    with tarfile.open(file, "w:gz", compresslevel=6) as archive:
        bomb(archive, tmp_path)
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, TOOL, "check", file], capture_output=True, text=True, timeout=120
    )
    assert int(measured.stdout.splitlines()[-1]) < 100 * 1024, measured.stderr


MEASURE = """
import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
