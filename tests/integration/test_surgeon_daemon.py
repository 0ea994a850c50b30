"""The surgeon's daemon as a real process: checkpoint in, statistics, plans, variants and verdicts out."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from shared.kernel.errors import ConfigurationError, DataError, NotFoundError
from shared.kernel.records import Record
from shared.wire.client import AgentClient
from shared.wire.surgeon_catalogue import KindInfo, MethodInfo
from shared.wire.surgeon_jobs import (
    ConvertParams,
    FileResult,
    MergeParams,
    ObserveParams,
    ObserveResult,
    PlanParams,
    PlanResult,
    PrepareParams,
    PrepareResult,
    QuantizeParams,
    RankParams,
    RankResult,
    SearchParams,
    SearchResult,
    SkippingParams,
    SkippingResult,
    ValidateParams,
    ValidateResult,
)
from shared.wire.surgeries import ApplyParams, ApplyResult, VerifyParams, VerifyResult
from tests.support.checkpoint_factory import TEXT, make_checkpoint

TOKEN = "a-token-for-this-test"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    root = tmp_path_factory.mktemp("surgeon")
    make_checkpoint(root / "model", n_layers=4, n_experts=12, experts_per_token=3)
    config = json.loads((root / "model" / "config.json").read_text())
    (root / "model" / "config.json").write_text(json.dumps(config | {"eos_token_id": 383}))  # the .t needs it
    make_checkpoint(root / "broken", n_layers=1, n_experts=4, experts_per_token=2)
    weights = root / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (root / "facts.txt").write_text(TEXT)
    (root / "heldout.txt").write_text(TEXT[:700])
    (root / "sanity.jsonl").write_text(
        '{"prompt": "The river Rhine flows"}\n{"prompt": "Paris is", "expect": ["capital"]}\n'
    )
    words = TEXT.split()
    quiz = [{"question": words[n], "choices": words[n + 1 : n + 3], "answer": n % 2} for n in range(10)]
    (root / "quiz.jsonl").write_text("\n".join(map(json.dumps, quiz)))
    (root / "token").write_text(TOKEN)
    port = _free_port()
    (root / "surgeon.toml").write_text(
        f"""name = "spark"
port = {port}
token_file = "token"
state_dir = "state"
sanity_prompts = "sanity.jsonl"
heldout_text = "heldout.txt"
window_tokens = 128
[models]
tiny = "model"
broken = "broken"
[corpora]
facts = ["facts.txt"]
[questions.quiz]
path = "quiz.jsonl"
"""
    )
    return root / "surgeon.toml", port


async def _start(config: Path, port: int) -> asyncio.subprocess.Process:
    log = config.parent / "stderr"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "surgeon", "--config", str(config), stderr=stderr
        )
    async with asyncio.timeout(30):
        while f"listens on http://127.0.0.1:{port}" not in log.read_text():
            await asyncio.sleep(0.05)
    return process


@pytest_asyncio.fixture
async def client(settings: tuple[Path, int]) -> AsyncIterator[AgentClient]:
    config, port = settings
    process = await _start(config, port)
    client = AgentClient(f"http://127.0.0.1:{port}", TOKEN)
    await client.health()
    yield client
    await client.close()
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 15) in (0, -signal.SIGTERM)


async def _prepare(client: AgentClient, job: str) -> PrepareResult:
    answer = await client.run(job, "prepare", PrepareParams(model="tiny", quantization="Q8_0"), timeout_s=60)
    return PrepareResult.model_validate(answer)


async def test_whole_chain_and_second_call_is_instant(client: AgentClient) -> None:
    assert (await client.health()).status == "ok"
    base = await _prepare(client, "c/prepare")
    assert (base.architecture, base.n_layers, base.n_experts, base.experts_per_token) == ("qwen3moe", 4, 12, 3)

    observe = ObserveParams(model_sha256=base.f16_sha256, corpus="facts")
    seen = ObserveResult.model_validate(await client.run("c/observe", "observe", observe, timeout_s=60))
    assert seen.n_tokens > 100

    variants = {}
    for group, layout in (("all", "uniform"), ("late", "biased")):
        params: Any = PlanParams(
            model_sha256=base.f16_sha256, statistics_sha256=seen.statistics_sha256, depth=4, group=group, layout=layout
        )
        plan = PlanResult.model_validate(await client.run(f"c/plan-{group}", "plan", params, timeout_s=60))
        assert plan.plan.plan_hash() == plan.plan_hash
        applied = ApplyParams(base_sha256=base.base_sha256, plan=plan.plan)
        result = ApplyResult.model_validate(await client.run(f"c/apply-{group}", "apply", applied, timeout_s=60))
        again = ApplyResult.model_validate(await client.run(f"c/apply-{group}-2", "apply", applied, timeout_s=5))
        assert again == result
        variants[group] = result
    assert variants["all"].size_bytes < base.base_size_bytes < variants["late"].size_bytes

    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        body = (await http.get(f"{client.base_url}/v1/artifacts/{variants['all'].sha256}")).content
    assert hashlib.sha256(body).hexdigest() == variants["all"].sha256

    params = ValidateParams(sha256=variants["late"].sha256, baseline_sha256=base.base_sha256, max_perplexity_ratio=1e6)
    verdict = ValidateResult.model_validate(await client.run("c/validate", "validate", params, timeout_s=60))
    assert verdict.perplexity and verdict.baseline_perplexity and len(verdict.answers) == 2
    strict = params.model_copy(update={"max_perplexity_ratio": 1e-3})
    verdict = ValidateResult.model_validate(await client.run("c/validate-2", "validate", strict, timeout_s=20))
    assert not verdict.ok and "perplexity" in verdict.reason

    loop = asyncio.get_running_loop()
    started = loop.time()
    assert await _prepare(client, "c/prepare-again") == base
    await client.run("c/observe-again", "observe", observe, timeout_s=5)
    assert loop.time() - started < 2


async def test_no_drop_in_the_uniform_layout_is_the_base_itself(client: AgentClient) -> None:
    base = await _prepare(client, "n/prepare")
    params = PlanParams(model_sha256=base.f16_sha256, method="random", depth=0)
    plan = PlanResult.model_validate(await client.run("n/plan", "plan", params, timeout_s=60))
    applied = ApplyParams(base_sha256=base.base_sha256, plan=plan.plan)
    result = ApplyResult.model_validate(await client.run("n/apply", "apply", applied, timeout_s=60))
    assert result.sha256 == base.base_sha256


async def test_clear_errors(client: AgentClient) -> None:
    base = await _prepare(client, "e/prepare")
    with pytest.raises(DataError, match="truncated"):
        await client.run("e/broken", "prepare", PrepareParams(model="broken"), timeout_s=60)
    with pytest.raises(NotFoundError, match="no such model"):
        await client.run("e/unknown", "prepare", PrepareParams(model="nobody"), timeout_s=60)
    with pytest.raises(ConfigurationError, match="biased"):
        params = PlanParams(model_sha256=base.f16_sha256, method="random", depth=2, group="early")
        await client.run("e/layout", "plan", params, timeout_s=60)
    with pytest.raises(ConfigurationError, match="active per token"):
        params = PlanParams(model_sha256=base.f16_sha256, method="random", depth=10)
        await client.run("e/deep", "plan", params, timeout_s=60)
    with pytest.raises(ConfigurationError, match="no number format Q40"):
        await client.run("e/outtype", "convert", ConvertParams(model="tiny", outtype="Q40"), timeout_s=60)
    with pytest.raises(ConfigurationError, match="needs expert statistics"):
        params = PlanParams(model_sha256=base.f16_sha256, method="reap", depth=1)
        await client.run("e/stats", "plan", params, timeout_s=60)


async def test_rank_search_and_verify(client: AgentClient) -> None:
    base = await _prepare(client, "s/prepare")
    observe = ObserveParams(model_sha256=base.f16_sha256, corpus="facts", reservoir=16)
    seen = ObserveResult.model_validate(await client.run("s/observe", "observe", observe, timeout_s=60))

    rank = RankParams(model_sha256=base.f16_sha256, statistics_sha256=seen.statistics_sha256, method="ean")
    ranked = RankResult.model_validate(await client.run("s/rank", "rank", rank, timeout_s=60))
    assert [len(row) for row in ranked.saliency] == [12] * 4

    params = SearchParams(
        model_sha256=base.f16_sha256, method="naee", depth=1, statistics_sha256=seen.statistics_sha256
    )
    naee = SearchResult.model_validate(await client.run("s/naee", "search", params, timeout_s=60))
    assert naee.report["exhaustive"] and len(naee.report["losses"]) == 4
    params = SearchParams(
        model_sha256=base.f16_sha256, method="eep", depth=6, questions=("quiz",),
        parameters={"iterations": 1, "offspring": 2},
    )  # fmt: skip
    eep = SearchResult.model_validate(await client.run("s/eep", "search", params, timeout_s=60))
    assert 0 <= eep.report["validation_accuracy"] <= 1 and all(len(ids) == 6 for ids in eep.plan.kept)
    again = SearchResult.model_validate(await client.run("s/eep-again", "search", params, timeout_s=60))
    assert again == eep
    with pytest.raises(NotFoundError, match="no such questions"):
        await client.run("s/nobody", "search", params.model_copy(update={"questions": ("x",)}), timeout_s=60)

    applied = ApplyParams(base_sha256=base.base_sha256, plan=eep.plan)
    variant = ApplyResult.model_validate(await client.run("s/apply", "apply", applied, timeout_s=60))
    check = VerifyParams(base_sha256=base.base_sha256, plan=eep.plan, sha256=variant.sha256)
    proof = VerifyResult.model_validate(await client.run("s/verify", "verify", check, timeout_s=60))
    assert proof.plan_hash == eep.plan_hash and proof.n_bytes > 100_000 and not proof.identical
    with pytest.raises(DataError):
        await client.run("s/verify-2", "verify", check.model_copy(update={"plan": naee.plan}), timeout_s=60)


async def test_the_catalogue_refuses_methods_and_parameters(client: AgentClient) -> None:
    infos = {one["name"]: MethodInfo.model_validate(one) for one in await client.request("GET", "/v1/methods")}
    assert {name for name, info in infos.items() if info.kind == "search"} == {"naee", "eep", "eep_merge"}
    assert infos["reap"].needs == ("statistics",) and infos["reap"].statistics == ("selections", "gate_norm_sum")
    assert (infos["aimer"].needs, infos["aimer"].formats) == (("weights",), ("gguf",))
    assert [parameter.name for parameter in infos["random"].parameters] == ["seed"]

    kinds = {one["name"]: KindInfo.model_validate(one) for one in await client.request("GET", "/v1/kinds")}
    assert set(kinds) == {"plan", "prune_experts", "merge_experts", "experts_per_token", "quantize"}
    assert kinds["experts_per_token"].parameters[0].name == "k" and kinds["quantize"].formats == ("gguf",)

    f16 = (await _prepare(client, "c/prepare")).f16_sha256
    wrong = PlanParams(model_sha256=f16, method="random", depth=1, parameters={"seeds": 5})
    with pytest.raises(ConfigurationError, match=r"method random: seeds: Extra inputs are not permitted"):
        await client.run("c/wrong", "plan", wrong, timeout_s=60)
    right = PlanParams(model_sha256=f16, method="random", depth=1, parameters={"seed": 5})
    plan = PlanResult.model_validate(await client.run("c/right", "plan", right, timeout_s=60)).plan
    by_seed = PlanParams(model_sha256=f16, method="random", depth=1, seed=5)
    assert PlanResult.model_validate(await client.run("c/seed", "plan", by_seed, timeout_s=60)).plan == plan


async def test_surgeries_in_order_are_a_job_with_hash_and_proof(
    client: AgentClient, settings: tuple[Path, int]
) -> None:
    f16 = (await _prepare(client, "l/prepare")).f16_sha256
    planned = PlanParams(model_sha256=f16, method="random", depth=3)
    plan = PlanResult.model_validate(await client.run("l/plan", "plan", planned, timeout_s=60)).plan
    tables: list[dict[str, Any]] = [{"kind": "plan", "plan": plan.model_dump(mode="json")}]

    async def apply(job: str, surgeries: list[dict[str, Any]]) -> ApplyResult:
        params = ApplyParams.model_validate({"base_sha256": f16, "surgeries": surgeries})
        return ApplyResult.model_validate(await client.run(f"l/{job}", "apply", params, timeout_s=60))

    by_plan = ApplyResult.model_validate(
        await client.run("l/by-plan", "apply", ApplyParams(base_sha256=f16, plan=plan), timeout_s=60)
    )
    alone = await apply("alone", tables)
    assert (alone.sha256, alone.surgeries_sha256, alone.plan) == (by_plan.sha256, plan.plan_hash(), plan)
    assert by_plan.surgeries_sha256 is None and by_plan.plan is None, "a plan answers as it always did"

    tables += [{"kind": "experts_per_token", "k": 2}, {"kind": "quantize", "quantization": "Q8_0"}]
    made = await apply("list", tables)
    assert made.plan is None and made.brought_by == {} and made.sha256 != alone.sha256
    again = await apply("list-again", tables)
    assert again == made, "what is known is not made again"
    check = VerifyParams.model_validate({"base_sha256": f16, "surgeries": tables, "sha256": made.sha256})
    proof = VerifyResult.model_validate(await client.run("l/verify", "verify", check, timeout_s=60))
    assert proof.plan_hash == made.surgeries_sha256 and proof.n_bytes > made.size_bytes, "both passes are proved"
    with pytest.raises(DataError):
        other = check.model_copy(update={"sha256": alone.sha256})
        await client.run("l/verify-other", "verify", other, timeout_s=60)
    with pytest.raises(ConfigurationError, match="k: Input should be greater"):
        await apply("wrong", [{"kind": "experts_per_token", "k": 0}])
    with pytest.raises(ConfigurationError, match="unknown kind of surgery 'lobotomy'"):
        await apply("unknown", [{"kind": "lobotomy"}])

    steps = [{"surgery": table} for table in tables]
    after = await client.request("POST", "/v1/checks", json={"model": "tiny", "steps": steps})
    assert (after["n_experts"], after["experts_per_token"], after["quantization"]) == (9, 2, "Q8_0")
    with pytest.raises(ConfigurationError, match="Q8_0 already"):
        await client.request("POST", "/v1/checks", json={"model": "tiny", "quantization": "Q8_0", "steps": steps})

    gone = settings[0].parent / "state" / "artifacts" / made.sha256
    gone.unlink()
    validate = ValidateParams(sha256=made.sha256)
    await client.run("l/validate", "validate", validate, timeout_s=60)
    assert gone.is_file(), "a variant that is gone is made again from its surgeries"


async def test_what_the_command_line_can_the_daemon_can(client: AgentClient) -> None:
    """Conversion, an importance matrix, shards, blends, budgets, the merge phase, skipping."""

    async def file(job: str, kind: str, params: Record) -> str:
        return FileResult.model_validate(await client.run(f"p/{job}", kind, params, timeout_s=60)).sha256

    f16 = (await _prepare(client, "p/prepare")).f16_sha256
    assert await file("gguf", "convert", ConvertParams(model="tiny")) == f16
    model = await file("m", "convert", ConvertParams(model="tiny", format="dllama"))
    await file("t", "convert", ConvertParams(model="tiny", format="dllama_tokenizer"))

    seen = []
    for shard in ((0, 2), (1, 2), (0, 1)):
        params = ObserveParams(model_sha256=f16, corpus="facts", columns=True, shard=shard)
        answer = await client.run(f"p/observe-{shard[0]}-{shard[1]}", "observe", params, timeout_s=60)
        seen.append(ObserveResult.model_validate(answer))
    halves = MergeParams(statistics_sha256s=(seen[0].statistics_sha256, seen[1].statistics_sha256))
    assert ObserveResult.model_validate(await client.run("p/merge", "merge", halves, timeout_s=60)) == seen[2]

    params = PlanParams(  # type: ignore[assignment]
        model_sha256=f16, statistics_sha256=seen[2].statistics_sha256, method="ean", depth=3, layout="biased",
        budget="bisect", fewest=4, protect_super=True, domain_weights={"facts": 2.0}, group=(0, 2),
    )  # fmt: skip
    plan = PlanResult.model_validate(await client.run("p/plan", "plan", params, timeout_s=60)).plan
    assert sum(map(len, plan.dropped)) == 6 and not plan.dropped[1] and plan.parameters["domain.facts"] == 2.0
    by_list = PlanParams(model_sha256=f16, method="random", keep=(8, 8, 8, 8), seed=5)
    plan = PlanResult.model_validate(await client.run("p/list", "plan", by_list, timeout_s=60)).plan
    assert plan.parameters["seed"] == 5

    cut = ApplyParams(base_sha256=f16, plan=plan)
    variant = ApplyResult.model_validate(await client.run("p/cut", "apply", cut, timeout_s=60))
    cut = ApplyParams(base_sha256=model, plan=plan)
    await client.run("p/cut-m", "apply", cut, timeout_s=60)
    quantize = QuantizeParams(
        model_sha256=variant.sha256, quantization="Q4_0", statistics_sha256=seen[2].statistics_sha256, plan=plan
    )
    assert await file("imatrix", "quantize", quantize) != await file(
        "plain", "quantize", QuantizeParams(model_sha256=variant.sha256, quantization="Q4_0")
    )

    search = SearchParams(
        model_sha256=f16, method="eep_merge", plan=plan, questions=("quiz",),
        parameters={"iterations": 1, "offspring": 2},
    )  # fmt: skip
    merged = SearchResult.model_validate(await client.run("p/eep-merge", "search", search, timeout_s=60))
    assert merged.plan.merge is not None and 0 <= merged.report["validation_accuracy_of_base"] <= 1
    applied = ApplyParams(base_sha256=f16, plan=merged.plan)
    variant = ApplyResult.model_validate(await client.run("p/merge-experts", "apply", applied, timeout_s=60))
    check = VerifyParams(base_sha256=f16, plan=merged.plan, sha256=variant.sha256)
    await client.run("p/verify", "verify", check, timeout_s=60)

    params = SkippingParams(model_sha256=f16, statistics_sha256=seen[2].statistics_sha256, questions=("quiz",))  # type: ignore[assignment]
    skipped = SkippingResult.model_validate(await client.run("p/skipping", "skipping", params, timeout_s=60))
    assert len(skipped.betas) == 4 and 0 < skipped.tasks[0].share_skipped < 1


async def test_a_token_is_needed(client: AgentClient) -> None:
    async with httpx.AsyncClient() as http:
        for path in ("/v1/health", "/v1/jobs", "/v1/artifacts"):
            assert (await http.get(client.base_url + path)).status_code == 401


async def test_killed_daemon_leaves_no_child_and_answers_for_its_job(
    settings: tuple[Path, int], tmp_path: Path
) -> None:
    config, port = settings
    other = tmp_path / "surgeon.toml"
    other.write_text(config.read_text().replace('state_dir = "state"', f'state_dir = "{tmp_path}/state"'))
    for name in ("model", "broken", "facts.txt", "heldout.txt", "sanity.jsonl", "quiz.jsonl", "token"):
        (tmp_path / name).symlink_to(config.parent / name)
    process = await _start(other, port)
    client = AgentClient(f"http://127.0.0.1:{port}", TOKEN)
    await client.submit("k/prepare", "prepare", PrepareParams(model="tiny"))
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    process = await _start(other, port)
    state = await client.job("k/prepare")
    assert state.status == "interrupted"
    await client.run("k/prepare-2", "prepare", PrepareParams(model="tiny"), timeout_s=60)
    await client.close()
    process.terminate()
    await process.wait()
