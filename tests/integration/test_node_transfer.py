"""Variants reach a node by plan, by HTTP and by the real rsync; the bytes over the net are recorded and compared."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.artifacts import hash_file
from shared.errors import ConfigurationError, InfrastructureError
from shared.node_jobs.artifacts import CollectParams, HoldParams, ObtainParams
from shared.records import SurgeryPlan
from shared.surgery import apply_plan
from tests.node_lab import AgentProcess, agents, client
from tests.node_tiny_model import write_tiny_model

PLAN = SurgeryPlan(n_experts=16, kept=(tuple(range(1, 16)),) * 4, method="test")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a base of some MB and its variant."""
    folder = tmp_path_factory.mktemp("models")
    base = write_tiny_model(folder / "base.gguf", n_experts=16, hidden=256)
    apply_plan(base, PLAN, folder / "variant.gguf")
    return base, folder / "variant.gguf"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    """Return a source and a node; the node's rsync reaches the source by a local stand-in for ssh."""
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')  # drops the host, runs the rest: what ssh does over there
    shell.chmod(0o755)
    with agents(tmp_path, "source", "node") as (source, node):
        node.end()
        artifacts = source.state_dir / "artifacts"
        extra = f'\nrsync_source = "somewhere:{artifacts}"\nrsync_shell = "{shell}"\nartifact_quota_bytes = 60000000\n'
        node.config.write_text(node.config.read_text() + extra)
        node.start()
        yield source, node


async def test_by_plan_costs_kilobytes_where_files_cost_megabytes(
    pair: tuple[AgentProcess, AgentProcess], models: tuple[Path, Path]
) -> None:
    source, node = pair
    base, variant = models
    base_sha, variant_sha = source.store(base), source.store(variant)
    size = variant.stat().st_size
    wish = ObtainParams(sha256=variant_sha, size_bytes=size, base_sha256=base_sha, plan=PLAN)
    received: dict[str, int] = {}
    async with client(node) as agent:
        first = await agent.run(
            "t/base", "obtain", ObtainParams(sha256=base_sha, size_bytes=base.stat().st_size), timeout_s=60
        )
        assert (first["way"], first["bytes_received"]) == ("http", base.stat().st_size)
        ways = ["plan", "http", *(["rsync"] if shutil.which("rsync") else [])]
        await agent.run("t/hold", "hold", HoldParams(holder="campaign", sha256s=(base_sha,)), timeout_s=10)
        for way in ways:
            only = wish.model_copy(update={"ways": (way,)})
            result = await agent.run(f"t/{way}", "obtain", only, timeout_s=60)
            assert (result["way"], result["size_bytes"]) == (way, size)
            assert hash_file(node.state_dir / "artifacts" / variant_sha) == variant_sha
            received[way] = result["bytes_received"] + result["bytes_sent"]
            collected = await agent.run(f"t/collect-{way}", "collect", CollectParams(), timeout_s=10)
            assert collected["removed"] == [variant_sha], "the held base stays"
        best = await agent.run("t/best", "obtain", wish, timeout_s=60)
        assert best["way"] == "plan"
        assert (await agent.run("t/again", "obtain", wish, timeout_s=60))["way"] == "here"
    assert received["plan"] < 2000 and received["http"] == size
    if "rsync" in received:
        # Against its basis rsync sends checksums of all blocks and the blocks that changed: less than the file.
        assert received["plan"] < received["rsync"] < size
    print(f"bytes over the net for a variant of {size}: {received}", file=sys.stderr)


async def test_a_way_that_fails_is_followed_by_the_next(
    pair: tuple[AgentProcess, AgentProcess], models: tuple[Path, Path]
) -> None:
    source, node = pair
    base, variant = models
    base_sha, variant_sha = source.store(base), source.store(variant)
    async with client(node) as agent:
        node.store(base)
        wrong = PLAN.model_copy(update={"kept": (tuple(range(15)),) * 4})
        wish = ObtainParams(sha256=variant_sha, size_bytes=variant.stat().st_size, base_sha256=base_sha, plan=wrong)
        result = await agent.run("t/next", "obtain", wish, timeout_s=60)
        assert result["way"] == "http"
        nothing = ObtainParams(sha256="3" * 64, size_bytes=1, ways=("plan",))
        with pytest.raises(ConfigurationError, match=r"no way to bring this artifact here: .*no plan was given"):
            await agent.run("t/none", "obtain", nothing, timeout_s=60)
        with pytest.raises(InfrastructureError):
            missing = ObtainParams(sha256="3" * 64, size_bytes=1)
            await agent.run("t/missing", "obtain", missing, timeout_s=60)
        large = ObtainParams(sha256="4" * 64, size_bytes=10**9, base_sha256=base_sha, plan=PLAN, ways=("plan",))
        with pytest.raises(InfrastructureError, match="do not fit the quota"):
            await agent.run("t/large", "obtain", large, timeout_s=60)
