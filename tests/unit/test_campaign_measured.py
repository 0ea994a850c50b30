"""An attempt stage by stage: windows in our time, the least quiet window of a label, one hash of several outputs."""

import asyncio
import hashlib

import pytest

from orchestrator.benchmarks.records import WindowAnswers
from orchestrator.campaign.measured import (
    AttemptPlace,
    ClosedWindows,
    IdleWindow,
    LoadedModel,
    ScoreWindow,
    hash_of_outputs,
)
from orchestrator.campaign.preparation import Base, ModelFile, Variant
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.steady_state import SteadyStateWait
from orchestrator.domain.run.clocks import ClockOffset
from orchestrator.domain.run.records import ServedBy
from shared.kernel.records import TokenLedger, Window
from shared.wire.meter_api import MeterStatus
from shared.wire.node_jobs.activity import AgentActivity
from shared.wire.node_jobs.artifacts import FetchParams
from shared.wire.node_jobs.workloads import MarkerResult, ScoreResult, WorkloadResult
from shared.wire.surgeon_jobs import PrepareResult
from tests.support.domain_lab import INSTRUMENT, configuration

SHA = "ab" * 32
NOW = 1_800_000_000_000_000_000
OFFSET = 5_000_000_000
"""How far the root node's clock is ahead of ours."""


def activity(cpu_s: float) -> AgentActivity:
    return AgentActivity(start_utc_ns=NOW, end_utc_ns=NOW + 10**9, agent_cpu_s=cpu_s, agent_written_bytes=0)


def workload(start_s: float, output: str | None = None, cpu_s: float | None = None, **ledger: int) -> WorkloadResult:
    start = NOW + OFFSET + round(start_s * 1e9)
    return WorkloadResult(
        start_utc_ns=start, end_utc_ns=start + 10**9, ledger=TokenLedger(**ledger), output_sha256=output,
        agent=None if cpu_s is None else activity(cpu_s),
    )  # fmt: skip


ANSWER = ScoreResult(
    start_utc_ns=NOW + OFFSET + 10 * 10**9, end_utc_ns=NOW + OFFSET + 12 * 10**9, ledger=TokenLedger(scored=3),
    groups=(),
)  # fmt: skip


@pytest.fixture
async def closed() -> ClosedWindows:
    """One prefill and two decode windows; scored by another engine."""

    counting = asyncio.get_running_loop().create_future()  # nothing here waits for it
    request = FetchParams(sha256=SHA, size_bytes=1)
    base = PrepareResult(f16_sha256=SHA, base_sha256=SHA, base_size_bytes=1, architecture="qwen3moe",
                         n_layers=1, n_experts=4, experts_per_token=2)  # fmt: skip
    variant = Variant(Base(base, None, {}), None, ModelFile(request, request), ModelFile(request, request))
    usual = ServedBy(engine="distributed-llama", engine_build="1", model_sha256=SHA, nodes=("node1", "node2"))
    scorer = usual.model_copy(update={"engine": "llama.cpp"})
    place = AttemptPlace(RunReference.parse("baseline/rep-1"), 1, configuration("baseline"), ("node1", "node2"))
    idle = Window(label="idle", start_utc_ns=NOW, end_utc_ns=NOW + 10**9)
    meter = MeterStatus(connected=True, instrument=INSTRUMENT, nodes=("node1", "node2"))
    marker_on = NOW + OFFSET + 2 * 10**9
    return ClosedWindows(
        loaded=LoadedModel(place, variant, {}, usual),
        steady_state=SteadyStateWait(mode="fixed", start_utc_ns=NOW - 1, end_utc_ns=NOW),
        idle=IdleWindow(idle, {"node1": ClockOffset(utc_ns=NOW, offset_ns=OFFSET, uncertainty_s=0)}, meter, {}, {}),
        marker=MarkerResult(start_utc_ns=marker_on, end_utc_ns=marker_on + 9, on=((marker_on + 1, marker_on + 3),)),
        prefill=(workload(4, cpu_s=0.1, prompt=100),),
        decode=(workload(6, "cd" * 32, 0.2, generated=10), workload(8, "ef" * 32, 0.3, generated=20)),
        score=ScoreWindow(counting, scorer, WindowAnswers(score=ANSWER)),  # type: ignore[arg-type]
        facts_after={},
        activity_after={},
        clocks_after={"node1": ClockOffset(utc_ns=NOW + 20 * 10**9, offset_ns=OFFSET, uncertainty_s=0)},
        loads=(),
    )


def test_windows_are_told_in_our_time_and_in_order(closed: ClosedWindows) -> None:
    windows = closed.windows()
    assert [window.label for window in windows] == ["idle", "marker", "prefill", "decode", "decode", "score"]
    assert [(window.start_utc_ns - NOW) / 1e9 for window in windows] == [0, 2, 4, 6, 8, 10]
    assert [window.node for window in windows] == [None, "node1", None, None, None, None]
    assert (windows[4].ledger.generated, windows[5].ledger.scored) == (20, 3)
    marker = closed.marker_in_our_time()
    assert (marker.start_utc_ns, marker.on) == (NOW + 2 * 10**9, ((NOW + 2 * 10**9 + 1, NOW + 2 * 10**9 + 3),))


def test_each_window_says_its_engine_and_its_least_quiet_agent(closed: ClosedWindows) -> None:
    assert {label: served.engine for label, served in closed.served().items()} == {
        **dict.fromkeys(("idle", "prefill", "decode"), "distributed-llama"), "score": "llama.cpp",
    }  # fmt: skip
    found = closed.window_agent_activity()
    assert {label: one.agent_cpu_s for label, one in found.items()} == {"prefill": 0.1, "decode": 0.3}


def test_outputs_of_several_jobs_have_one_hash(closed: ClosedWindows) -> None:
    assert hash_of_outputs(closed.decode) == hashlib.sha256(("cd" * 32 + "ef" * 32).encode()).hexdigest()
    assert hash_of_outputs(closed.decode[:1]) == "cd" * 32
    assert hash_of_outputs(closed.prefill) is None
