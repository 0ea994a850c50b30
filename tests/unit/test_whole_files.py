"""Files and folders exist whole or not at all; the partial ones of the dead go, those of the living stay."""

from pathlib import Path

import pytest

from shared.files.atomic import atomic_write, remove_stale


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
