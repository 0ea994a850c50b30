"""A store's file that is not what its name says: seen where it changed, found when it is hashed anew, set aside."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.files.artifacts import ArtifactStore
from shared.files.durability import hash_file
from shared.files.integrity import DamagedArtifactError
from shared.kernel.clock import utc_ns
from shared.kernel.errors import InfrastructureError, NotFoundError
from shared.wire.artifact_checks import ArtifactChecks, CheckParams, ScrubParams
from shared.wire.job_server import JobContext, JobServer
from shared.wire.protocol import JobRequest
from tests.support.flipped_bytes import flip_byte, flip_byte_unseen


def put(store: ArtifactStore, content: bytes) -> str:
    scratch = store.scratch()
    scratch.write_bytes(content)
    return store.adopt(scratch).sha256


def hashes_counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that grows by each file that is hashed for a check."""
    hashed: list[Path] = []

    def counting(path: Path, on_bytes: Callable[[int], None] | None = None, *, from_disk: bool = False) -> str:
        hashed.append(path)
        return hash_file(path, on_bytes, from_disk=from_disk)

    monkeypatch.setattr("shared.files.integrity.hash_file", counting)
    return hashed


def test_what_is_unchanged_is_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = hashes_counted(monkeypatch)
    store = ArtifactStore(tmp_path)
    sha256 = put(store, b"x" * 5000)
    for _ in range(3):
        assert store.check(sha256) == tmp_path / sha256
        assert store.path(sha256) == tmp_path / sha256, "using it is no change"
    assert hashed == []
    store.check(sha256, anew=True, from_disk=True)
    assert hashed == [tmp_path / sha256]
    again = ArtifactStore(tmp_path)
    again.check(sha256)
    assert len(hashed) == 1, "a restart forgets nothing"


def test_a_file_without_a_record_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of earlier versions, or what somebody copied here."""
    hashed = hashes_counted(monkeypatch)
    content = b"from elsewhere"
    sha256 = hashlib.sha256(content).hexdigest()
    store = ArtifactStore(tmp_path)
    (tmp_path / sha256).write_bytes(content)
    store.check(sha256)
    store.check(sha256)
    assert len(hashed) == 1


@pytest.mark.parametrize("at", [0, 2500, -1])
def test_a_flipped_byte_is_found_though_size_and_time_are_what_they_were(tmp_path: Path, at: int) -> None:
    store = ArtifactStore(tmp_path)
    sha256 = put(store, b"x" * 5000)
    flip_byte(tmp_path / sha256, at)
    with pytest.raises(DamagedArtifactError, match=f"artifact {sha256[:12]} was damaged .* set aside now"):
        store.check(sha256)
    assert not store.has(sha256) and store.list() == []
    (damaged,) = store.integrity.quarantine.list()
    aside = Path(damaged.file)
    assert damaged.sha256 == sha256 and hashlib.sha256(aside.read_bytes()).hexdigest() == damaged.found_sha256
    assert damaged.healthy_utc_ns is not None
    with pytest.raises(DamagedArtifactError, match="was set aside"):
        store.check(sha256)
    assert put(store, b"x" * 5000) == sha256, "it can be made again"
    store.check(sha256, anew=True)


def test_what_no_time_tells_is_found_by_hashing_anew(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    sha256 = put(store, b"x" * 5000)
    flip_byte_unseen(tmp_path / sha256)
    store.check(sha256)
    with pytest.raises(DamagedArtifactError):
        store.check(sha256, anew=True)


def test_a_file_that_was_replaced_or_copied_back_is_hashed(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    sha256 = put(store, b"x" * 5000)
    status = (tmp_path / sha256).stat()
    (tmp_path / "other").write_bytes(b"y" * 5000)
    os.utime(tmp_path / "other", ns=(status.st_atime_ns, status.st_mtime_ns))
    (tmp_path / "other").replace(tmp_path / sha256)
    with pytest.raises(DamagedArtifactError):
        store.check(sha256)


def test_what_changes_while_it_is_hashed_is_not_judged(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    sha256 = put(store, b"x" * 5000)
    with pytest.raises(InfrastructureError, match="somebody writes"):
        store.check(sha256, anew=True, on_bytes=lambda _: flip_byte(tmp_path / sha256))


def test_the_only_copy_stays_and_a_replaced_one_goes_first(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, quota_bytes=12_000)
    sha256 = put(store, b"x" * 5000)
    flip_byte(tmp_path / sha256)
    with pytest.raises(DamagedArtifactError):
        store.check(sha256)
    store.make_room(12_000)
    store.collect_garbage(0)
    assert len(store.integrity.quarantine.list()) == 1, "nobody has another"
    assert put(store, b"x" * 5000) == sha256
    store.make_room(1000)
    assert len(store.integrity.quarantine.list()) == 1, "there is room"
    assert store.make_room(3000) == []
    assert store.integrity.quarantine.list() == [] and store.has(sha256)


def test_in_a_store_of_copies_room_is_made_at_once(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, quota_bytes=8_000, copies_only=True)
    sha256 = put(store, b"x" * 5000)
    flip_byte(tmp_path / sha256)
    with pytest.raises(DamagedArtifactError):
        store.check(sha256)
    store.make_room(5000)
    assert store.integrity.quarantine.list() == []
    with pytest.raises(NotFoundError):
        store.path(sha256)


class _Progress(JobContext):
    """A job of its own for handlers that are called directly."""

    def __init__(self, alone_for: int) -> None:
        self._alone_for = alone_for
        self.told: list[tuple[float, str]] = []

    def progress(self, fraction: float, message: str = "") -> None:
        self.told.append((fraction, message))

    @property
    def is_alone(self) -> bool:
        self._alone_for -= 1
        return self._alone_for >= 0


async def test_a_check_tells_what_is_missing_and_what_was_damaged(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    good, bad, unseen = (put(store, bytes([n]) * 5000) for n in range(3))
    flip_byte(tmp_path / bad)
    flip_byte_unseen(tmp_path / unseen)
    checks = ArtifactChecks(store)
    result = await checks.check(CheckParams(sha256s=(good, bad, unseen, "7" * 64), anew=(good,)), _Progress(9))
    assert result.missing == (bad, "7" * 64) and [one.sha256 for one in result.damaged] == [bad]
    (problem,) = checks.problems()
    assert bad[:12] in problem.text and "nobody has brought it again yet" in problem.text
    put(store, bytes([1]) * 5000)
    assert "it is here again" in checks.problems()[0].text


async def test_a_scrub_finds_what_nobody_sees_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    every = [put(store, bytes([n]) * 5000) for n in range(4)]
    flip_byte_unseen(tmp_path / every[3])
    checks, begun = ArtifactChecks(store), utc_ns()
    first = await checks.scrub(ScrubParams(hashed_before_utc_ns=begun), _Progress(2))
    assert (first.n_hashed, first.n_left, first.reason) == (2, 2, "another job came")
    second = await checks.scrub(ScrubParams(hashed_before_utc_ns=begun), _Progress(99))
    assert (second.n_hashed, second.n_left, second.hashed_bytes) == (2, 0, 10_000), "only what was left"
    assert [one.sha256 for one in second.damaged] == [every[3]]
    report = checks.report()
    assert report.n_artifacts == 3 and report.last_scrub == second and [one.sha256 for one in report.damaged]
    assert report.oldest_hash_utc_ns is not None and report.oldest_hash_utc_ns > begun
    third = await checks.scrub(ScrubParams(hashed_before_utc_ns=begun), _Progress(99))
    assert third.n_hashed == 0


async def test_a_scrub_ends_as_soon_as_another_job_comes(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    for n in range(3):
        put(store, bytes([n]) * (24 << 20))
    checks = ArtifactChecks(store)
    server = JobServer(tmp_path / "jobs.sqlite", checks.kinds())
    async with server.running():
        params = ScrubParams(hashed_before_utc_ns=utc_ns()).model_dump(mode="json")
        await server.submit("scrub/node1/1", JobRequest(kind="scrub", params=params))
        await server.submit("a/check", JobRequest(kind="check_artifacts", params={"sha256s": []}, delay_s=0.0))
        await server.submit("a/later", JobRequest(kind="check_artifacts", params={"sha256s": []}, delay_s=5.0))
        async with asyncio.timeout(4):
            while not (state := await server.get("scrub/node1/1")).is_terminal:
                await asyncio.sleep(0.01)
        assert state.result is not None and state.result["reason"] == "another job came" and state.result["n_left"]
