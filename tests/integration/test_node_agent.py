"""Real node agents over loopback: jobs, crash and restart, silence inside windows, clean ends."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from node_agent.processes import ProcessIdentity
from node_agent.settings import NodeSettings
from shared.checkpoints.surgery import apply_plan
from shared.kernel.build import software_build
from shared.kernel.errors import AuthError, ConfigurationError, DataError, InfrastructureError, NotFoundError
from shared.kernel.records import SurgeryPlan
from shared.kernel.settings import validate_settings
from shared.service.daemon import EXIT_HELD, EXIT_SETTINGS
from shared.wire.client import AgentClient
from shared.wire.node_jobs.activity import AgentActivity, activity_between
from shared.wire.node_jobs.artifacts import FetchParams
from shared.wire.node_jobs.engines import EngineInfo, StartEngineParams, StartWorkerParams, StopEngineParams
from shared.wire.node_jobs.host import NodeFacts
from shared.wire.node_jobs.workloads import DecodeParams, MarkerParams
from tests.support import dllama_stand_in
from tests.support.node_lab import TOKEN, agents, client
from tests.support.node_tiny_dllama import write_model, write_tokenizer
from tests.support.node_tiny_model import write_tiny_model

DECODE = DecodeParams(prompts=("Hello the world",), tokens_each=40)


async def test_two_nodes_from_fetch_to_tokens(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base.gguf")
    plan = SurgeryPlan(n_experts=4, kept=((0, 1, 3),) * 4, method="test")
    variant = tmp_path / "variant.gguf"
    apply_plan(base, plan, variant)
    with agents(tmp_path, "one", "two") as (one, two):
        async with client(one) as root, client(two) as other:
            base_sha, variant_sha = one.store(base), hashlib.sha256(variant.read_bytes()).hexdigest()
            fetch = FetchParams(sha256=base_sha, size_bytes=base.stat().st_size)
            fetched = await other.run("t/base", "fetch", fetch, timeout_s=20)
            assert (fetched["method"], fetched["bytes_received"]) == ("http", base.stat().st_size)
            again = await other.run("t/base-2", "fetch", fetch, timeout_s=20)
            assert (again["method"], again["bytes_received"]) == ("here", 0)

            size = variant.stat().st_size
            deploy = FetchParams(sha256=variant_sha, size_bytes=size, base_sha256=base_sha, plan=plan)
            deployed = await root.run("t/variant", "fetch", deploy, timeout_s=20)
            assert (deployed["method"], deployed["size_bytes"]) == ("plan", size)
            wrong = deploy.model_copy(update={"sha256": "1" * 64})
            with pytest.raises(DataError, match="differs from the expected"):
                await root.run("t/wrong", "fetch", wrong, timeout_s=20)
            stored = {path.name for path in (one.state_dir / "artifacts").glob("?" * 64)}
            assert stored == {base_sha, variant_sha}
            missing = StartEngineParams(model_sha256="2" * 64)
            with pytest.raises(NotFoundError):
                await root.run("t/engine-missing", "start_engine", missing, timeout_s=20)

            endpoints = [
                (await agent.run("t/worker", "start_worker", StartWorkerParams(), timeout_s=30))["endpoint"]
                for agent in (root, other)
            ]
            assert endpoints == [one.worker, two.worker]
            engine = StartEngineParams(model_sha256=variant_sha, workers=tuple(endpoints))
            await root.run("t/engine", "start_engine", engine, timeout_s=30)
            done = await root.run("t/decode", "decode", DECODE, timeout_s=30)
            assert done["ledger"]["generated"] == 40
            marked = await root.run("t/marker", "marker", MarkerParams(on_s=0.2, off_s=0.1, cycles=2), timeout_s=30)
            spans = [marked["start_utc_ns"], *(t for on in marked["on"] for t in on), marked["end_utc_ns"]]
            assert spans == sorted(spans) and len(marked["on"]) == 2
            assert all(end - begin > 0.19e9 for begin, end in marked["on"])

            assert two.pid_of("worker") is not None
            os.kill(two.pid_of("worker") or 0, signal.SIGKILL)
            with pytest.raises(InfrastructureError) as failure:
                await root.run("t/decode-2", "decode", DECODE, timeout_s=30)
            assert failure.value.where == two.worker
            await root.run("t/stop", "stop_engine", StopEngineParams(worker=True), timeout_s=30)
            assert one.pid_of("worker") is None and one.pid_of("engine") is None


async def test_children_outlive_a_killed_agent_and_are_found_again(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "base.gguf")
    with agents(tmp_path, "one") as (one,):
        async with client(one) as root:
            engine = StartEngineParams(model_sha256=one.store(model), workers=(one.worker,))
            await root.run("t/worker", "start_worker", StartWorkerParams(), timeout_s=30)
            await root.run("t/engine", "start_engine", engine, timeout_s=30)
            before = await root.run("t/decode", "decode", DECODE, timeout_s=30)
            pids = one.pid_of("worker"), one.pid_of("engine")
            long = DecodeParams(prompts=("Hello the world",), tokens_each=1000, repeats=100)
            await root.submit("t/long", "decode", long)
            await asyncio.sleep(0.3)
            one.end(signal.SIGKILL)
            assert (one.pid_of("worker"), one.pid_of("engine")) == pids
            one.start()
            state = await root.job("t/long")
            assert state.status == "interrupted"
            after = await root.run("t/decode-2", "decode", DECODE, timeout_s=30)
            assert after["output_sha256"] == before["output_sha256"]
            assert (one.pid_of("worker"), one.pid_of("engine")) == pids


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopped_agent_leaves_nothing_even_in_the_middle_of_work(tmp_path: Path, number: int) -> None:
    model = write_tiny_model(tmp_path / "base.gguf")
    with agents(tmp_path, "one") as (one,):
        async with client(one) as root:
            engine = StartEngineParams(model_sha256=one.store(model), workers=(one.worker,))
            await root.run("t/worker", "start_worker", StartWorkerParams(), timeout_s=30)
            await root.run("t/engine", "start_engine", engine, timeout_s=30)
            await root.submit("t/long", "decode", DecodeParams(prompts=("Hello",), tokens_each=1000, repeats=100))
            async with root.follow() as _events:
                await asyncio.sleep(0.3)
                pids = [one.pid_of("worker"), one.pid_of("engine")]
                assert one.end(number) == 0
        assert all(pid is not None and ProcessIdentity.of(pid) is None for pid in pids)


async def test_the_agent_is_silent_inside_a_window(tmp_path: Path) -> None:
    """At most 0.2 % of a core and not one byte to disk while a workload runs; and the agent's own proof says so."""
    model = write_tiny_model(tmp_path / "base.gguf")
    with agents(tmp_path, "one") as (one,):
        async with client(one) as root:
            engine = StartEngineParams(model_sha256=one.store(model), workers=(one.worker,))
            await root.run("t/worker", "start_worker", StartWorkerParams(), timeout_s=30)
            await root.run("t/engine", "start_engine", engine, timeout_s=30)
            assert one.process is not None
            watched = [psutil.Process(pid) for pid in (one.process.pid, one.pid_of("engine"))]
            long = DecodeParams(prompts=("Hello",), tokens_each=1000, repeats=1000)
            async with root.follow() as _events:
                await root.submit("t/long", "decode", long)
                await asyncio.sleep(1)
                proof = AgentActivity.model_validate(await root.request("GET", "/v1/activity"))
                cpu, written = _agent_cpu_s(watched[0]), [process.io_counters().write_bytes for process in watched]
                start = time.monotonic()
                await asyncio.sleep(6)
                share = (_agent_cpu_s(watched[0]) - cpu) / (time.monotonic() - start)
                assert [process.io_counters().write_bytes for process in watched] == written
                after = AgentActivity.model_validate(await root.request("GET", "/v1/activity"))
                assert (await root.job("t/long")).status == "running"
                facts = [await root.request("GET", "/v1/facts") for _ in range(2)]
                assert facts[0] == facts[1], "facts were read again inside a window"
                await root.cancel("t/long")
            assert share <= 0.002
            proof = activity_between(proof, after)
            assert (proof.agent_written_bytes, proof.engine_written_bytes, proof.worker_written_bytes) == (0, 0, 0)
            assert proof.agent_cpu_share <= 0.003  # this interval holds the two questions for it as well
            assert [event.what for event in proof.events] == ["served GET /v1/activity"]
            done = await root.run("t/decode", "decode", DECODE, timeout_s=30)
            assert done["agent"]["engine_written_bytes"] == 0 and done["agent"]["agent_cpu_s"] < 0.5


def _agent_cpu_s(process: psutil.Process) -> float:
    """CPU seconds by the scheduler's own count (nanoseconds), over all threads; the tick count is too coarse."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def test_facts_tokens_and_bodies(tmp_path: Path) -> None:
    with agents(tmp_path, "one") as (one,):
        async with client(one) as root:
            facts = NodeFacts.model_validate(await root.request("GET", "/v1/facts"))
            assert facts.name == "one" and facts.n_cpus == os.cpu_count() and facts.memory_bytes > 1e8
            assert abs(facts.utc_ns - time.time_ns()) < 5e9
            assert facts.software == software_build() and facts.engine is not None and facts.engine.rpc
            health = await root.health()
            assert (health.version, health.build) == (str(software_build()), software_build())
            infos = [EngineInfo.model_validate(info) for info in await root.request("GET", "/v1/engines")]
            engines = {info.name: info for info in infos}
            assert engines["llama.cpp"].available and engines["llama.cpp"].score
            assert not engines["distributed-llama"].score
        async with httpx.AsyncClient(base_url=one.url) as stranger:
            for name in ("health", "facts", "jobs", "engines", "activity", "artifacts", "artifacts/" + "0" * 64):
                path = f"/v1/{name}"
                answer = await stranger.get(path)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized"), path
            body = {"kind": "decode", "params": {"prompts": [], "tokens_each": 3}}
            answer = await stranger.put("/v1/jobs/t/x", json=body, headers={"Authorization": f"Bearer {TOKEN}"})
            assert answer.status_code == 422 and "params.prompts" in answer.json()["error"]["where"]
        wrong = AgentClient(one.url, "wrong")
        with pytest.raises(AuthError):
            await wrong.health()
        await wrong.close()


async def test_a_second_agent_of_the_same_folder_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with agents(tmp_path, "one") as (one,):
        async with client(one) as root:
            await root.run("t/worker", "start_worker", StartWorkerParams(), timeout_s=30)
            second = subprocess.run(
                [sys.executable, "-m", "node_agent", "--config", str(one.config)], capture_output=True, text=True
            )
            assert one.process is not None
            assert second.returncode == EXIT_HELD and f"another node agent (pid {one.process.pid})" in second.stderr
            assert one.pid_of("worker") is not None


def test_bad_settings_end_in_one_clear_line(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text('name = "one"\nport = 99999\nstate_dir = "x"\n')
    run = subprocess.run([sys.executable, "-m", "node_agent", "--config", str(config)], capture_output=True, text=True)
    assert run.returncode == EXIT_SETTINGS
    assert run.stderr.splitlines() == [
        f"error: {config}: port: Input should be less than or equal to 65535 (given: 99999)"
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "cluster"])
def test_a_worker_without_authentication_is_never_open_to_all(host: str) -> None:
    with pytest.raises(ConfigurationError, match="interface"):
        validate_settings(NodeSettings, {"name": "n", "state_dir": "x", "worker_host": host}, where="node.toml")


async def test_an_agent_changes_from_one_engine_to_the_other(tmp_path: Path) -> None:
    launcher = tmp_path / "dllama"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{dllama_stand_in.__file__}" "$@"\n')
    launcher.chmod(0o755)
    gguf, model = write_tiny_model(tmp_path / "base.gguf"), write_model(tmp_path / "base.m")
    tokenizer = write_tokenizer(tmp_path / "base.t")
    with agents(tmp_path, "one", "two") as (one, two):
        for agent in (one, two):
            agent.end()
            table = f'[engines.distributed-llama]\nprogram = "{launcher}"\n'
            agent.config.write_text(f"{agent.config.read_text()}\n{table}")
            agent.start()
        async with client(one) as root, client(two) as other:
            rpc = await other.run("t/w-rpc", "start_worker", StartWorkerParams(), timeout_s=30)
            engine = StartEngineParams(model_sha256=one.store(gguf), workers=(rpc["endpoint"],))
            await root.run("t/e-rpc", "start_engine", engine, timeout_s=30)
            worker = StartWorkerParams(engine="distributed-llama")
            started = await other.run("t/w-dl", "start_worker", worker, timeout_s=30)
            assert started["pid"] != rpc["pid"] and ProcessIdentity.of(rpc["pid"]) is None
            two.end(signal.SIGKILL)
            two.start()
            async with client(two):  # waits until it answers, however busy the machine
                pass
            assert (await other.run("t/w-dl-2", "start_worker", worker, timeout_s=30))["pid"] == started["pid"]
            engine = StartEngineParams(
                engine="distributed-llama", model_sha256=one.store(model), tokenizer_sha256=one.store(tokenizer),
                workers=(started["endpoint"],),
            )  # fmt: skip
            loaded = await root.run("t/e-dl", "start_engine", engine, timeout_s=30)
            assert (loaded["engine"], loaded["architecture"]) == ("distributed-llama", "qwen3moe")
            assert one.pid_of("engine") is None
            done = await root.run("t/d-dl", "decode", DECODE, timeout_s=30)
            assert done["ledger"]["generated"] == DECODE.tokens_each


async def test_the_command_line(tmp_path: Path) -> None:
    def epi(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", "from shared.cli import main; main()", "node", *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60)

    local = NodeFacts.model_validate_json(epi("facts", "--json").stdout)
    with agents(tmp_path, "one") as (one,):
        async with client(one):
            config = ("--config", str(one.config))
            remote = await asyncio.to_thread(epi, "facts", "--json", *config)
            assert NodeFacts.model_validate_json(remote.stdout).kernel == local.kernel
            assert "kernel" in (await asyncio.to_thread(epi, "facts", *config)).stdout
            table = await asyncio.to_thread(epi, "engines", *config)
            assert "llama.cpp" in table.stdout and "distributed-llama" in table.stdout
            steady = await asyncio.to_thread(epi, "steady-gate", *config, "--min-s", "0", "--max-s", "0.1")
            assert steady.returncode in (0, 2) and "steady: temperature" in steady.stdout
            wrong = await asyncio.to_thread(epi, "governor", "turbo", *config)
            assert wrong.returncode == 1 and "governor" in wrong.stderr
    away = epi("engines", *config)
    assert away.returncode == 1 and "does not answer" in away.stderr
