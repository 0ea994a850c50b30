"""Files and folders exist whole or not at all; the partial ones of the dead go, those of the living stay."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shared.files.atomic import atomic_write, move_into_place, remove_stale, write_file, write_files
from tests.support.small_files import largest_file


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "result"
    target.write_text("old")
    with atomic_write(target) as beside:
        beside.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and names(tmp_path) == ["result"]


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "result", folder=True) as beside:
        (beside / "a").write_text("a")
    assert names(tmp_path) == ["result"] and names(tmp_path / "result") == ["a"]


@pytest.mark.parametrize("folder", [False, True])
def test_a_failure_leaves_nothing(tmp_path: Path, folder: bool) -> None:
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "result", folder=folder):
        raise RuntimeError
    assert names(tmp_path) == []


def test_only_what_the_dead_left_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "re[s]ult"
    stale = [tmp_path / f".re[s]ult.{number * 32}.partial" for number in "ab"]
    stale[0].write_text("half")
    stale[1].mkdir()
    (stale[1] / "shard").write_text("half")
    others = [f".other.{chr(97) * 32}.partial", ".re[s]ult.partial", "re[s]ult.bak"]
    for name in others:
        (tmp_path / name).touch()
    with atomic_write(target) as living:
        assert living.exists() and not any(entry.exists() for entry in stale)
        with atomic_write(target) as second:
            second.write_text("second")
        assert living.exists() and remove_stale(target) == []
        living.write_text("first")
    assert target.read_text() == "first" and names(tmp_path) == sorted([*others, target.name])


def test_bytes_and_text_in_a_folder_that_was_not_there(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "b" / "text", "zwölf\n")
    write_file(tmp_path / "a" / "b" / "bytes", b"\xff")
    assert (tmp_path / "a/b/text").read_bytes() == "zwölf\n".encode() and (
        tmp_path / "a/b/bytes"
    ).read_bytes() == b"\xff"
    assert names(tmp_path / "a/b") == ["bytes", "text"]


def test_a_secret_is_nobody_elses_from_the_first_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    write = Path.write_bytes

    def look(path: Path, data: bytes) -> int:
        seen.append(stat.S_IMODE(path.stat().st_mode))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", look)
    write_file(tmp_path / "token", "secret", mode=0o600)
    write_file(tmp_path / "open", "all may read it")
    assert seen[0] == 0o600 == stat.S_IMODE((tmp_path / "token").stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("durable", [False, True])
def test_what_must_not_be_overwritten_stays(tmp_path: Path, durable: bool) -> None:
    target = tmp_path / "calibration"
    write_file(target, "first", overwrite=False, durable=durable)
    with pytest.raises(FileExistsError):
        write_file(target, "second", overwrite=False, durable=durable)
    assert target.read_text() == "first" and names(tmp_path) == ["calibration"]
    assert target.stat().st_nlink == 1


def test_where_there_are_no_hard_links_it_stays_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(target))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write_file(tmp_path / "token", "first", overwrite=False)
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "token", "second", overwrite=False)
    assert (tmp_path / "token").read_text() == "first" and names(tmp_path) == ["token"]


def test_a_link_is_replaced_and_what_it_points_to_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "result").symlink_to("elsewhere")
    write_file(tmp_path / "result", "new")
    assert (tmp_path / "elsewhere").read_text() == "mine" and not (tmp_path / "result").is_symlink()


def test_several_files_appear_in_order_and_only_when_all_could_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    replace = Path.replace

    def look(path: Path, target: Path) -> Path:
        order.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", look)
    first, last, other = tmp_path / "epi", tmp_path / "run", tmp_path / "folder" / "trace"
    assert write_files({other: b"1", first: b"2", last: "3"}) == (other, first, last)
    assert order == ["trace", "epi", "run"]
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        write_files({first: b"new", last: b"x" * 1000})
    assert first.read_bytes() == b"2" and last.read_bytes() == b"3"
    assert names(tmp_path) == ["epi", "folder", "run"]


def test_a_file_from_elsewhere_takes_its_place(tmp_path: Path) -> None:
    (tmp_path / "scratch").write_text("new")
    (tmp_path / "result").write_text("old")
    move_into_place(tmp_path / "scratch", tmp_path / "result")
    assert (tmp_path / "result").read_text() == "new" and names(tmp_path) == ["result"]


def test_a_writer_that_is_killed_leaves_the_former_file_and_nothing_for_ever(tmp_path: Path) -> None:
    target = tmp_path / "settings.toml"
    target.write_text("former")
    code = f"""
import pathlib, time
from shared.files.atomic import atomic_write
with atomic_write(pathlib.Path({str(target)!r})) as beside:
    beside.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"writing\n"
        assert remove_stale(target) == []
        writer.send_signal(signal.SIGKILL)
    assert target.read_text() == "former" and len(names(tmp_path)) == 2
    write_file(target, "later")
    assert target.read_text() == "later" and names(tmp_path) == ["settings.toml"]
