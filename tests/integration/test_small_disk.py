"""A campaign on a root with room for the base model and one variant, and on a surgeon that keeps none: what it needs is
never removed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from orchestrator.local.layout import load_demo
from shared.wire.artifacts import GarbageCollectionParams, GarbageCollectionResult, PinParams, PinResult
from shared.wire.client import AgentClient
from tests.support.flipped_bytes import flip_byte_unseen
from tests.support.lab import (
    DEMO,
    TestLab,
    api_of,
    quick_spec,
    running_lab,
    start_campaign,
    wait_for_end,
    wait_for_step,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

QUOTA_BYTES = 17_500_000
"""The demo's base model has 8.9 MB, its variants with 2 and 4 experts dropped 7.9 and 7.0 MB: two of the three fit."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[TestLab]:
    demo = load_demo(DEMO).model_copy(update={"artifact_quota_bytes": QUOTA_BYTES})
    file = tmp_path / "demo.toml"
    file.write_text(tomli_w.dumps({"lab": demo.model_dump(mode="json", exclude_none=True)}))
    with running_lab(file) as lab:
        yield lab


async def test_quota_and_collection_spare_what_a_campaign_needs(lab: TestLab) -> None:
    store = lab.home / "state" / "node1" / "artifacts"
    stranger = store / ("5" * 64)
    stranger.write_bytes(b"x" * 1_000_000)  # nobody pins it: it goes as soon as room is needed
    start_campaign(lab, quick_spec("small", "baseline,drop2_all,drop4_all", repetitions=2, questions=4))
    wait_for_step(lab, "small", "drop2_all/rep-1", "decode", timeout_s=400)
    root = AgentClient(lab.url("node1"), lab.token("node1"))
    surgeon = AgentClient(lab.url("surgeon"), lab.token("surgeon"))
    try:
        # A user cleans up in the middle of the campaign, as thoroughly as can be.
        cleaned = await root.run("user/clean", "collect_garbage", GarbageCollectionParams(), timeout_s=120)
        collected = GarbageCollectionResult.model_validate(cleaned)
        assert all(one == stranger.name for one in collected.removed)
        held = frozenset((store / "pins" / "small").read_text().split())
        assert len(held) == 2 and all((store / sha256).is_file() for sha256 in held)
        cleaned = await surgeon.run("user/clean", "collect_garbage", GarbageCollectionParams(), timeout_s=120)
        assert GarbageCollectionResult.model_validate(cleaned).removed, "variants at least"
        kept = {one["sha256"] for one in await surgeon.request("GET", "/v1/artifacts")}
        assert kept >= frozenset((lab.home / "state/surgeon/artifacts/pins/small").read_text().split())
        status = wait_for_end(lab, "small", 600)
        assert status["state"] == "finished", status["reason"]
        for agent in (root, surgeon):
            known = PinResult.model_validate(await agent.run("user/pins", "pin", PinParams(owner="user"), timeout_s=30))
            assert known.owners == (), "a finished campaign pins nothing"
    finally:
        await root.close()
        await surgeon.close()
    assert not stranger.exists()
    files = [path for path in store.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= QUOTA_BYTES
    broken = [one["reason"] for run in status["runs"] for one in run["attempts"] if one["outcome"] != "done"]
    assert broken == [], "no attempt broke for want of room"
    methods = {}
    for run in ("drop2_all", "drop4_all"):
        for number in ("001", "002"):
            document = json.loads((lab.out / "small" / run / f"run_{number}.json").read_text())
            methods[run, number] = document["deliveries"]["node1"]["method"]
    # Measured in the order 0 2 4 | 4 2 0: the second drop2 was removed for drop4 and is made again, from the base.
    assert methods == {
        ("drop2_all", "001"): "plan", ("drop4_all", "001"): "plan",
        ("drop4_all", "002"): "here", ("drop2_all", "002"): "plan",
    }  # fmt: skip
    (base,) = [one for one in status["deliveries"] if one["method"] == "http"]
    assert base["times"] == 1, "the base model crossed the net once"
    assert api_of(lab).call("GET", "/v1/campaigns/small")["deliveries"] == status["deliveries"]


async def test_what_was_lost_on_the_surgeon_is_made_again(lab: TestLab) -> None:
    """While a campaign is paused somebody empties the surgeon's store, and the root's copy of the base goes bad."""
    start_campaign(lab, quick_spec("lost", "baseline,drop2_all", repetitions=2, questions=4))
    wait_for_step(lab, "lost", "drop2_all/rep-1", "decode", timeout_s=400)
    api = api_of(lab)
    api.call("POST", "/v1/campaigns/lost/pause")
    assert wait_for_end(lab, "lost", 300)["state"] == "paused"
    before = {one["sha256"]: one["size_bytes"] for one in await _artifacts(lab)}
    for sha256 in before:
        (lab.home / "state/surgeon/artifacts" / sha256).unlink()
    document = json.loads((lab.out / "lost" / "drop2_all" / "run_001.json").read_text())
    variant, base = document["provenance"]["model_sha256"], document["provenance"]["base_sha256"]
    root = lab.home / "state" / "node1" / "artifacts"
    (root / variant).unlink()
    damaged = bytearray((root / base).read_bytes())
    damaged[-1000] ^= 0x20  # in the output layer, which no plan touches
    (root / base).write_bytes(damaged)
    api.call("POST", "/v1/campaigns/lost/resume")
    status = wait_for_end(lab, "lost", 600)
    assert status["state"] == "finished", status["reason"]
    again = json.loads((lab.out / "lost" / "drop2_all" / "run_002.json").read_text())
    for field in ("model_sha256", "base_sha256", "statistics_sha256", "output_sha256"):
        assert again["provenance"][field] == document["provenance"][field], field
    assert base in {one["sha256"] for one in await _artifacts(lab)}, "the root needed it; the variant it made itself"


async def test_a_variant_that_the_root_cannot_make_is_cut_again_by_the_surgeon(lab: TestLab) -> None:
    """The root's base rots unseen while a campaign runs, and the variant is lost on both: its plan makes another."""
    start_campaign(lab, quick_spec("unseen", "baseline,drop2_all,drop4_all", repetitions=2, questions=4))
    wait_for_step(lab, "unseen", "drop4_all/rep-1", "decode", timeout_s=400)
    document = json.loads((lab.out / "unseen" / "drop2_all" / "run_001.json").read_text())
    variant, base = document["provenance"]["model_sha256"], document["provenance"]["base_sha256"]
    for agent in ("node1", "surgeon"):
        (lab.home / "state" / agent / "artifacts" / variant).unlink(missing_ok=True)
    flip_byte_unseen(lab.home / "state/node1/artifacts" / base)
    status = wait_for_end(lab, "unseen", 600)
    assert status["state"] == "finished", status["reason"]
    again = json.loads((lab.out / "unseen" / "drop2_all" / "run_002.json").read_text())
    for field in ("model_sha256", "base_sha256", "statistics_sha256", "output_sha256"):
        assert again["provenance"][field] == document["provenance"][field], field
    delivery = again["deliveries"]["node1"]
    assert delivery["method"] == "http", "by plan it was another file"
    assert {one["sha256"] for one in await _artifacts(lab)} >= {base, variant}


async def _artifacts(lab: TestLab) -> list[dict[str, Any]]:
    surgeon = AgentClient(lab.url("surgeon"), lab.token("surgeon"))
    try:
        found: list[dict[str, Any]] = await surgeon.request("GET", "/v1/artifacts")
        return found
    finally:
        await surgeon.close()
