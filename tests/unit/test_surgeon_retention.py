"""What the surgeon keeps: a matrix of variants takes bounded room, and what went is cut again with the same bytes."""

import os
from pathlib import Path

import pytest

from shared.files.artifacts import NoRoomError
from shared.kernel.errors import NotFoundError
from tests.support.node_tiny_model import write_tiny_model
from tests.support.surgeon_tools import EXPERTS, LAYERS, adopted, cut, drop, tools_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "base.gguf", n_layers=LAYERS, n_experts=EXPERTS)


async def test_a_matrix_of_25_variants_keeps_the_base_and_three_of_them(tmp_path: Path, model: Path) -> None:
    tools = tools_of(tmp_path, variant_quota_bytes=3 * model.stat().st_size)
    base = await adopted(tools, model)
    tools.store.pin("campaign", [base])
    plans = [drop(first, count) for count in (1, 2, 3) for first in range(EXPERTS - count)][:25]
    made = [await cut(tools, base, plan) for plan in plans]
    assert len({variant.sha256 for variant in made}) == 25
    assert tools.store.has(base) and tools.store.has(made[-1].sha256)
    assert tools.store.used_bytes() <= 4 * model.stat().st_size, "25 variants would be some 22 times the model"
    assert not tools.store.has(made[0].sha256)


async def test_a_variant_that_went_is_cut_again_when_it_is_read(tmp_path: Path, model: Path) -> None:
    tools = tools_of(tmp_path, variant_quota_bytes=0)
    base = await adopted(tools, model)
    first, second = await cut(tools, base, drop(0, 2)), await cut(tools, base, drop(4, 2))
    assert not tools.store.has(first.sha256), "the newest stays, whatever the limit"
    async with tools.reading(first.sha256, second.sha256) as paths:
        assert [path.name for path in paths] == [first.sha256, second.sha256]
        assert paths[0].stat().st_size == first.size_bytes
    # Asked for by its plan, a remembered result whose file is gone is made again too.
    tools.store.collect_garbage(0)
    tools = tools_of(tmp_path)
    base = await adopted(tools, model)
    assert (await cut(tools, base, drop(0, 2))).sha256 == first.sha256 and tools.store.has(first.sha256)


async def test_a_plan_that_drops_nothing_leaves_the_base_a_base(tmp_path: Path, model: Path) -> None:
    tools = tools_of(tmp_path, variant_quota_bytes=0)
    base = await adopted(tools, model)
    assert (await cut(tools, base, drop(0, 0))).sha256 == base
    await cut(tools, base, drop(0, 1))
    assert tools.store.has(base)
    tools.store.collect_garbage(0)
    with pytest.raises(NotFoundError):
        async with tools.reading(base):
            pass


async def test_the_quota_holds_and_is_refused_before_the_work_where_it_cannot(tmp_path: Path, model: Path) -> None:
    tools = tools_of(tmp_path, artifact_quota_bytes=int(2.5 * model.stat().st_size))
    base = await adopted(tools, model)
    statistics = tools.store.scratch()
    statistics.write_bytes(b"statistics of another campaign")
    other = (await tools.adopt(statistics)).sha256
    os.utime(tools.store.root / "hashes" / other, (1000, 1000))
    tools.store.pin("campaign", [base])
    first, second = await cut(tools, base, drop(0, 1)), await cut(tools, base, drop(1, 1))
    assert not tools.store.has(first.sha256) and tools.store.has(second.sha256)
    assert tools.store.has(other), "variants go before what no plan makes again, however old that is"
    tools.store.pin("user", [second.sha256])
    with pytest.raises(NoRoomError, match="do not fit the quota"):
        await cut(tools, base, drop(2, 1))
    assert tools.store.used_bytes() <= (tools.settings.artifact_quota_bytes or 0)


async def test_a_file_that_came_out_too_large_is_not_kept(tmp_path: Path, model: Path) -> None:
    tools = tools_of(tmp_path, artifact_quota_bytes=model.stat().st_size - 1)
    with pytest.raises(NoRoomError):
        await adopted(tools, model)
    assert tools.store.list() == []
