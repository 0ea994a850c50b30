"""Variants reach a node by plan, by HTTP and by the real rsync over a real sshd; bytes are recorded and compared."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.checkpoints.surgery import apply_plan
from shared.files.durability import hash_file
from shared.kernel.errors import ConfigurationError, InfrastructureError
from shared.kernel.records import SurgeryPlan, canonical_json
from shared.wire.artifacts import GarbageCollectionParams, PinParams
from shared.wire.node_jobs.artifacts import FetchParams, FetchResult, TransferMethod
from tests.support.node_lab import AgentProcess, agents, client
from tests.support.node_tiny_model import write_tiny_model
from tests.support.ssh_lab import ssh_server

PLAN = SurgeryPlan(n_experts=16, kept=(tuple(range(1, 16)),) * 4, method="test")
LATER = SurgeryPlan(n_experts=16, kept=tuple(tuple(e for e in range(16) if e not in (n, n + 5)) for n in range(4)))
MOST_BYTES_BY_PLAN = 2_000_000


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Return a base of some MB and two variants."""
    folder = tmp_path_factory.mktemp("models")
    base = write_tiny_model(folder / "base.gguf", n_experts=16, hidden=256)
    apply_plan(base, PLAN, folder / "variant.gguf")
    apply_plan(base, LATER, folder / "later.gguf")
    return base, folder / "variant.gguf", folder / "later.gguf"


@pytest.fixture
def pair(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    """Return a source and a node; the node's rsync reaches the source's folder over ssh."""
    assert shutil.which("rsync"), "rsync is needed; do: sudo apt-get install -y rsync"
    with ssh_server(tmp_path_factory.mktemp("ssh")) as ssh, agents(tmp_path, "source", "node") as (source, node):
        node.end()
        artifacts = source.state_dir / "artifacts"
        extra = f'\nrsync_source = "{ssh.user_at_host}:{artifacts}"\nrsync_shell = "{ssh.shell}"\n'
        node.config.write_text(node.config.read_text() + extra + "artifact_quota_bytes = 60000000\n")
        node.start()
        yield source, node


async def test_later_variants_cost_kilobytes_by_plan_where_rsync_sends_megabytes(
    pair: tuple[AgentProcess, AgentProcess], models: tuple[Path, Path, Path]
) -> None:
    """The second and third model of a node, each by every method, in one run; the hash is always the source's."""
    source, node = pair
    base, *variants = models
    base_sha = source.store(base)
    methods: tuple[TransferMethod, ...] = ("plan", "http", "rsync")
    async with client(source), client(node) as agent:
        first = FetchParams(sha256=base_sha, size_bytes=base.stat().st_size)
        came = FetchResult.model_validate(await agent.run("t/base", "fetch", first, timeout_s=60))
        assert (came.method, came.net_bytes) == ("http", base.stat().st_size), came
        await agent.run("t/pin", "pin", PinParams(owner="campaign", sha256s=(base_sha,)), timeout_s=10)
        for number, (path, plan) in enumerate(zip(variants, (PLAN, LATER), strict=True)):
            sha256, size = source.store(path), path.stat().st_size
            request = FetchParams(sha256=sha256, size_bytes=size, base_sha256=base_sha, plan=plan)
            sent: dict[str, int] = {}
            for method in methods:
                only = request.model_copy(update={"methods": (method,)})
                job = f"t/{number}-{method}"
                came = FetchResult.model_validate(await agent.run(job, "fetch", only, timeout_s=60))
                assert (came.method, came.size_bytes) == (method, size)
                assert hash_file(node.state_dir / "artifacts" / sha256) == sha256
                sent[method] = came.net_bytes
                collected = await agent.run(
                    f"{job}/collect_garbage", "collect_garbage", GarbageCollectionParams(), timeout_s=10
                )
                assert collected["removed"] == [sha256], "the held base stays"
            # With the base as its basis rsync sends checksums of all blocks and those that changed: less than the file.
            assert sent["plan"] < MOST_BYTES_BY_PLAN and sent["plan"] * 10 < sent["rsync"] < size == sent["http"]
            print(f"bytes over the net for a variant of {size}: {sent}", file=sys.stderr)
        best = await agent.run("t/best", "fetch", request, timeout_s=60)
        assert best["method"] == "plan"
        assert (await agent.run("t/again", "fetch", request, timeout_s=60))["method"] == "here"


def test_the_plan_of_the_largest_model_is_small_too() -> None:
    plan = SurgeryPlan(n_experts=128, kept=(tuple(range(8, 128)),) * 48, method="reap")
    assert len(canonical_json(plan)) < 50_000 < MOST_BYTES_BY_PLAN


async def test_a_way_that_fails_is_followed_by_the_next(
    pair: tuple[AgentProcess, AgentProcess], models: tuple[Path, Path, Path]
) -> None:
    source, node = pair
    base, variant, _ = models
    base_sha, variant_sha = source.store(base), source.store(variant)
    async with client(source), client(node) as agent:
        node.store(base)
        wrong = PLAN.model_copy(update={"kept": (tuple(range(15)),) * 4})
        request = FetchParams(sha256=variant_sha, size_bytes=variant.stat().st_size, base_sha256=base_sha, plan=wrong)
        result = await agent.run("t/next", "fetch", request, timeout_s=60)
        assert result["method"] == "http"
        (failure,) = result["failed"]
        assert failure["method"] == "plan" and "differs from the expected" in failure["reason"]
        nothing = FetchParams(sha256="3" * 64, size_bytes=1, methods=("plan",))
        with pytest.raises(ConfigurationError, match=r"no method to bring this artifact here: .*no plan was given"):
            await agent.run("t/none", "fetch", nothing, timeout_s=60)
        with pytest.raises(InfrastructureError):
            missing = FetchParams(sha256="3" * 64, size_bytes=1)
            await agent.run("t/missing", "fetch", missing, timeout_s=60)
        large = FetchParams(sha256="4" * 64, size_bytes=10**9, base_sha256=base_sha, plan=PLAN, methods=("plan",))
        with pytest.raises(InfrastructureError, match="do not fit the quota"):
            await agent.run("t/large", "fetch", large, timeout_s=60)
