"""Appended lines outlive their writer; a full disk and a kill leave whole lines only."""

from pathlib import Path

import pytest

from shared.files.kept_lines import KeptLines
from shared.kernel.errors import DataError
from tests.support.small_files import largest_file


def test_lines_are_kept_and_belong_to_somebody(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    file = KeptLines(path, "model 1")
    assert (file.identity, file.lines) == ("model 1", ())
    file.append(["a", "zwölf"])
    file.append(["c"])
    again = KeptLines(path, "model 2")
    assert (again.identity, again.lines) == ("model 1", ("a", "zwölf", "c"))


def test_half_a_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    KeptLines(path, "m").append(["a"])
    with path.open("ab") as file:
        file.write(b"half a li")
    again = KeptLines(path, "m")
    again.append(["b"])
    assert KeptLines(path, "m").lines == ("a", "b")


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    file = KeptLines(path, "m")
    file.append(["a"])
    before = path.read_bytes()
    with largest_file(len(before) + 10), pytest.raises(OSError, match="File too large"):
        file.append(["b" * 1000])
    assert path.read_bytes() == before
    file.append(["c"])
    assert KeptLines(path, "m").lines == ("a", "c")


def test_an_empty_file_is_begun_and_a_strangers_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert KeptLines(tmp_path / "empty", "m").identity == "m"
    (tmp_path / "photo").write_bytes(b"\x89PNG without any line end")
    with pytest.raises(DataError, match="first line"):
        KeptLines(tmp_path / "photo", "m")
    assert (tmp_path / "photo").read_bytes() == b"\x89PNG without any line end"


def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text('{"identity": "search 1"}\n{"key": "x"}\n')
    file = KeptLines(tmp_path / "cache", "search 1")
    assert (file.identity, file.lines) == ("search 1", ('{"key": "x"}',))
