"""What of the surgeon's files is damaged is cut again, or refused by name; what comes from elsewhere is what it was."""

import os
from pathlib import Path

import pytest

from shared.files.durability import hash_file
from shared.files.integrity import DamagedArtifactError
from shared.kernel.clock import utc_ns
from shared.kernel.errors import DataError
from surgeon.jobs.files import FileJobs
from surgeon.work.cache import ResultCache, _FileHash, _hash_key
from tests.support.flipped_bytes import flip_byte, flip_byte_unseen
from tests.support.node_tiny_model import write_tiny_model
from tests.support.surgeon_tools import EXPERTS, LAYERS, adopted, cut, drop, tools_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "base.gguf", n_layers=LAYERS, n_experts=EXPERTS)


async def test_a_damaged_variant_is_cut_again_when_it_is_read_or_asked_for(tmp_path: Path, model: Path) -> None:
    tools = tools_of(tmp_path)
    base = await adopted(tools, model)
    variant = await cut(tools, base, drop(0, 2))
    path = tools.store.root / variant.sha256
    flip_byte(path)
    async with tools.reading(variant.sha256) as (again,):
        assert again == path and hash_file(path) == variant.sha256
    flip_byte(path)
    assert (await cut(tools, base, drop(0, 2))).sha256 == variant.sha256 and hash_file(path) == variant.sha256
    assert [one.sha256 for one in tools.store.integrity.quarantine.list()] == [variant.sha256] * 2


async def test_nothing_is_cut_from_a_damaged_base(tmp_path: Path, model: Path) -> None:
    tools = tools_of(tmp_path)
    base = await adopted(tools, model)
    flip_byte(tools.store.root / base, 4096)
    for _ in range(2):
        with pytest.raises(DamagedArtifactError, match=base[:12]):
            await cut(tools, base, drop(0, 2))
    assert len(tools.store.integrity.quarantine.list()) == 1, "the only copy is kept"
    assert await adopted(tools, model) == base
    await cut(tools, base, drop(0, 2))


async def test_a_copy_must_have_the_hash_of_its_source(tmp_path: Path, model: Path) -> None:
    """The source rots between being hashed and being copied, and nothing says so."""
    source = tmp_path / "elsewhere.gguf"
    source.write_bytes(model.read_bytes())
    tools = tools_of(tmp_path / "state")
    jobs = FileJobs(tools)
    tools.cache.hash_of(source)
    flip_byte(source)
    remember_as_it_is(tools.cache, source, hash_file(model))
    with pytest.raises(DataError, match="differs from the expected"):
        await jobs._copied(source)
    assert tools.store.list() == []


def remember_as_it_is(cache: ResultCache, path: Path, sha256: str) -> None:
    """Let the cache know a file as it looks now by the hash that it had: bytes that changed unseen."""
    cache.put(_hash_key(path), _FileHash(sha256=sha256, hashed_utc_ns=utc_ns() - 2 * 3600 * 10**9))


def test_a_checkpoint_that_rotted_unseen_is_not_converted(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    weights = folder / "model.safetensors"
    weights.write_bytes(b"w" * 5000)
    cache = ResultCache(tmp_path / "cache")
    sha256 = cache.hash_of(weights)
    cache.check_folder(folder)
    flip_byte(weights)
    remember_as_it_is(cache, weights, sha256)
    for _ in range(2):
        with pytest.raises(DataError, match="the bytes are others than before") as refused:
            cache.check_folder(folder)
        assert refused.value.where == str(weights)
    os.utime(weights)  # somebody brings it again, or says that it is meant
    cache.check_folder(folder)


async def test_statistics_that_rotted_unseen_are_found_by_the_scrub_only(tmp_path: Path, model: Path) -> None:
    tools = tools_of(tmp_path)
    sha256 = await adopted(tools, model)
    flip_byte_unseen(tools.store.root / sha256)
    async with tools.reading(sha256):
        pass
    with pytest.raises(DamagedArtifactError):
        tools.store.check(sha256, anew=True, from_disk=True)
