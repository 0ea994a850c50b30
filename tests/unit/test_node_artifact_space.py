"""Quota, holds and garbage collection of the artifact store, and the choice of the cheapest method."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.settings import NodeSettings
from node_agent.transfers.methods import costs
from node_agent.transfers.rsync import Traffic, parse_stats
from shared.files.artifacts import ArtifactStore
from shared.kernel.errors import InfrastructureError, NotFoundError
from shared.kernel.records import SurgeryPlan
from shared.wire.node_jobs.artifacts import FetchParams


def put(store: ArtifactStore, content: bytes, used_at_s: int) -> str:
    scratch = store.scratch()
    scratch.write_bytes(content)
    info = store.adopt(scratch)
    os.utime(store.root / "hashes" / info.sha256, (used_at_s, used_at_s))
    return info.sha256


def test_the_least_recently_used_make_room_and_what_is_held_stays(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, quota_bytes=100)
    old, pinned, newer = (put(store, bytes([n]) * 30, 1000 + n) for n in range(3))
    store.pin("campaign-1", [pinned])
    assert store.make_room(10) == []
    assert [info.sha256 for info in store.make_room(20)] == [old]
    assert {info.sha256 for info in store.list()} == {pinned, newer}
    with pytest.raises(InfrastructureError, match="only 30 may be removed"):
        store.make_room(80)
    assert store.has(newer), "nothing is removed in vain"
    with pytest.raises(InfrastructureError):
        store.make_room(60, keep={newer})
    store.pin("campaign-1", [])
    assert len(store.make_room(100)) == 2


def test_using_an_artifact_makes_it_recent(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, quota_bytes=70)
    first, second = put(store, b"a" * 30, 1000), put(store, b"b" * 30, 2000)
    store.path(first)
    assert [info.sha256 for info in store.make_room(30)] == [second]
    with pytest.raises(NotFoundError):
        store.path(second)


def test_holds_survive_a_restart_and_add_up(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    one, two, three = (put(store, bytes([n]), n) for n in range(3))
    store.pin("a", [one])
    store.pin("b", [one, two])
    again = ArtifactStore(tmp_path, quota_bytes=1)
    assert again.pinned() == {"a": {one}, "b": {one, two}}
    assert [info.sha256 for info in again.collect_garbage(0)] == [three]
    again.pin("b", [])
    assert [info.sha256 for info in again.collect_garbage(0)] == [two]
    assert again.collect_garbage(0) == []


@settings(deadline=None, max_examples=50)  # each example makes real files durable
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=8), st.integers(0, 200), st.integers(1, 300))
def test_after_making_room_it_fits_and_no_held_file_is_gone(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[int, bool]], needed: int, quota: int
) -> None:
    store = ArtifactStore(tmp_path_factory.mktemp("store"), quota_bytes=quota)
    names = [put(store, bytes([n]) * size, 1000 + n) for n, (size, _) in enumerate(files)]
    pinned = {name for name, (_, is_pinned) in zip(names, files, strict=True) if is_pinned}
    store.pin("c", pinned)
    before = set(names)
    try:
        removed = {info.sha256 for info in store.make_room(needed)}
    except InfrastructureError:
        assert sum(size for size, is_pinned in files if is_pinned) + needed > quota
        assert {info.sha256 for info in store.list()} == before
    else:
        assert store.used_bytes() + needed <= quota
        assert not removed & pinned
        assert {info.sha256 for info in store.list()} == before - removed


def test_scratch_of_a_dead_process_goes_and_downloads_stay(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    scratch, partial = store.scratch(), store.partial_path("0" * 64)
    scratch.write_bytes(b"x")
    partial.write_bytes(b"half")
    store.clean_scratch()
    assert not scratch.exists() and partial.exists()


PLAN = SurgeryPlan(n_experts=4, kept=((0, 1),) * 2)


def methods(store: ArtifactStore, params: FetchParams, **fields: object) -> list[tuple[str, int | None]]:
    made = NodeSettings.model_validate({"name": "n", "state_dir": store.root, **fields})
    return [(cost.method, cost.expected_bytes) for cost in costs(params, store, made)]


def test_the_cheapest_way_is_first_and_impossible_ones_have_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "rsync").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tools))
    store = ArtifactStore(tmp_path / "store")
    base = put(store, b"base", 1)
    params = FetchParams(sha256="1" * 64, size_bytes=5_000_000, base_sha256=base, plan=PLAN)
    both = {"source_url": "http://127.0.0.1:1", "rsync_source": "pi@spark:/srv"}
    found = methods(store, params, **both)
    assert [method for method, _ in found] == ["plan", "http", "rsync", "here"]
    assert found[0][1] is not None and found[0][1] < 1000
    assert [method for method, _ in methods(store, params, **both, prefer_rsync=True)] == [
        "plan",
        "rsync",
        "http",
        "here",
    ]
    store.partial_path("1" * 64).write_bytes(b"x" * 1_000_000)
    without_base = params.model_copy(update={"base_sha256": "2" * 64})
    assert methods(store, without_base, **both)[:2] == [("http", 4_000_000), ("rsync", 5_000_000)]
    not_http = without_base.model_copy(update={"methods": ("plan", "rsync")})
    assert methods(store, not_http, **both)[0][0] == "rsync"
    here = params.model_copy(update={"sha256": base})
    assert methods(store, here, **both)[0] == ("here", 0)
    made = NodeSettings.model_validate({"name": "n", "state_dir": store.root})
    reasons = {cost.method: cost.reason for cost in costs(without_base, store, made)}
    assert reasons == {
        "here": "it is not here", "plan": "the base model is not here", "http": "no source_url is set",
        "rsync": "no rsync_source is set",
    }  # fmt: skip


def test_rsync_statistics() -> None:
    text = "Number of files: 1 (reg: 1)\nTotal bytes sent: 12,345\nTotal bytes received: 6,789,012\n\nsent 12,345 bytes"
    assert parse_stats(text) == Traffic(sent=12345, received=6789012)
    with pytest.raises(InfrastructureError):
        parse_stats("rsync: connection unexpectedly closed")


def test_the_hash_is_the_name(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    assert put(store, b"abc", 1) == hashlib.sha256(b"abc").hexdigest()


def test_what_can_be_remade_goes_first_then_the_least_recently_used(tmp_path: Path) -> None:
    remade: set[str] = set()
    store = ArtifactStore(tmp_path, quota_bytes=100, can_be_remade=remade.__contains__)
    other, variant, later = (put(store, bytes([n]) * 30, 1000 + n) for n in range(3))
    remade |= {variant, later}
    assert [info.sha256 for info in store.make_room(30)] == [variant], "older, and no plan makes `other` again"
    assert [info.sha256 for info in store.make_room(70)] == [later]
    assert [info.sha256 for info in store.make_room(100)] == [other]


def test_what_is_read_stays_until_the_reader_is_done(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, quota_bytes=60, can_be_remade=lambda _: True)
    one, two = (put(store, bytes([n]) * 30, 1000 + n) for n in range(2))
    with store.reading(one) as (path,):
        with store.reading(one):
            pass
        assert [info.sha256 for info in store.make_room(10)] == [two]
        with pytest.raises(InfrastructureError, match="only 0 may be removed"):
            store.make_room(40)
        assert store.free_up(1000) == [] and store.trim_remade(0) == [] and store.collect_garbage(0) == []
        assert path.read_bytes() == bytes([0]) * 30
    assert [info.sha256 for info in store.free_up(1000)] == [one], "as far as it goes, and no error"
    with pytest.raises(NotFoundError), store.reading(one):
        pass


def test_remade_artifacts_have_a_room_of_their_own(tmp_path: Path) -> None:
    remade: set[str] = set()
    store = ArtifactStore(tmp_path, can_be_remade=remade.__contains__)
    names = [put(store, bytes([n]) * 10, 1000 + n) for n in range(6)]
    remade |= set(names[1:])
    store.pin("campaign", [names[1]])
    assert [info.sha256 for info in store.trim_remade(20, keep=[names[2]])] == names[3:5]
    assert store.trim_remade(20) == []
    assert [info.sha256 for info in store.trim_remade(0)] == [names[2], names[5]]
    assert {info.sha256 for info in store.list()} == set(names[:2]), "the others and what is pinned stay"


def test_without_a_quota_the_disk_is_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(tmp_path)
    old, newer = (put(store, bytes([n]) * 30, 1000 + n) for n in range(2))

    def full_but(free: int) -> None:
        monkeypatch.setattr("shared.files.artifacts.shutil.disk_usage", lambda _: SimpleNamespace(free=free))

    full_but(50)
    assert store.make_room(50) == []
    assert store.make_room(200) == [], "nothing is removed where even that would not do"
    assert [info.sha256 for info in store.make_room(70)] == [old]
    store.pin("campaign", [newer])
    full_but(0)
    assert store.make_room(20) == []
