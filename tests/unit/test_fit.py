"""Memory: what a configuration takes against what nodes have; the rules that say it, on known numbers."""

from pathlib import Path
from typing import Any

import pytest

from node_agent.machine.host import memory_limit_bytes
from orchestrator.campaign.cluster import buffers_by_node
from orchestrator.domain.campaign.fit import ConfigurationFit, NodeMemory, fewest, fit_of, question, variant_shape
from orchestrator.domain.campaign.schedule import configurations_of
from orchestrator.domain.campaign.spec import CampaignSpec
from shared.kernel.records import SurgeryPlan
from shared.llama.buffers import read_buffers, read_caches
from shared.wire.footprint import Footprint, NodeFootprint, ServingShape
from shared.wire.node_jobs.engines import EngineBuffers
from shared.wire.node_jobs.host import NodeFacts
from surgeon.footprint.distributed_llama import footprint
from surgeon.footprint.headers import HollowModel
from surgeon.footprint.tensors import class_of
from tests.support.shaped_model import write_shaped_model

SPEC: dict[str, Any] = {
    "schema_version": 2, "id": "fit", "model": "demo", "corpus": "demo", "configurations": "baseline",
    "accuracy": {"tasks": [{"task": "arc_challenge"}]},
    "model_shape": {"n_layers": 3, "n_experts": 16, "experts_per_token": 2},
}  # fmt: skip
LOG = """
load_tensors:   CPU_Mapped model buffer size =   166.92 MiB
load_tensors: RPC0[10.0.0.2:50052] model buffer size =   335.14 MiB
load_tensors: RPC0[10.0.0.1:50052] model buffer size =   628.34 MiB
llama_context:        CPU  output buffer size =    18.55 MiB
llama_kv_cache: RPC0[10.0.0.2:50052] KV buffer size =    16.00 MiB
llama_kv_cache: RPC0[10.0.0.1:50052] KV buffer size =    16.00 MiB
llama_kv_cache: size =   32.00 MiB (  8192 cells,   2 layers, 32/1 seqs), K (f16):   16.00 MiB, V (f16):   16.00 MiB
sched_reserve: RPC0[10.0.0.2:50052] compute buffer size =   128.05 MiB
sched_reserve:        CPU compute buffer size =    52.05 MiB
"""


def taking(*needed: int) -> Footprint:
    return Footprint(nodes=tuple(NodeFootprint(weights={"experts": one}) for one in needed), file_bytes=1, rule="")


def having(*usable: int) -> list[NodeMemory]:
    return [NodeMemory(name=f"node{n + 1}", total_bytes=2 * size, usable_bytes=size) for n, size in enumerate(usable)]


def spec(configurations: str, **changes: object) -> CampaignSpec:
    return CampaignSpec.model_validate(SPEC | {"configurations": configurations, **changes})


def one(configurations: str, **changes: object) -> Any:
    made = spec(configurations, **changes)
    return next(item for item in configurations_of(made) if not item.id.startswith("baseline")), made


def test_one_byte_decides() -> None:
    assert fit_of("a", having(10, 10), [taking(10, 4)], at_most=False).fits
    over = fit_of("a", having(10, 10), [taking(4, 11)], at_most=False)
    assert not over.fits and "node2" in over.reason() and "(1 bytes too few)" in over.reason()
    big = fit_of("a", having(1 << 34), [taking((1 << 34) + 1)], at_most=False)
    first, second = big.reason().split(" GiB")[0].split()[-1], big.reason().split(" GiB")[1].split()[-1]
    assert first != second  # the sizes are told apart


def test_of_two_engines_the_one_that_needs_more_counts_node_by_node() -> None:
    both = fit_of("a", having(10, 10), [taking(8, 2), taking(3, 11)], at_most=False)
    assert [node.needed for node in both.nodes] == [8, 11] and not both.fits
    with pytest.raises(ValueError, match="number of nodes"):
        fit_of("a", having(10), [taking(1, 2)], at_most=False)


def test_the_fewest_nodes_are_those_that_are_known_to_hold_it() -> None:
    fits = {n: fit_of("a", having(*(10,) * n), [taking(*(24 // n,) * n)], at_most=False) for n in (1, 2, 3, 4)}
    assert fewest(fits) == 3
    assert fewest({1: ConfigurationFit(configuration="a", problem="not known")}) is None
    assert fewest({1: fits[1], 2: fits[2]}) is None


def test_what_is_needed_at_once_is_the_larger_of_loading_and_working() -> None:
    node = NodeFootprint(
        weights={"experts": 100}, cache=5, compute=6, output=7, output_growth=2, loading=30, processes=9
    )
    assert node.buffers == 118 and node.needed == 100 + 30 + 9
    assert node.model_copy(update={"loading": 3}).needed == 100 + 20 + 9


def test_only_numbers_of_experts_are_asked_for() -> None:
    assert variant_shape(*one("drop4_all"))[0].kept == (12, 12, 12)
    assert variant_shape(*one("drop25pct_all"))[0].kept == (12, 12, 12)
    biased, bound = variant_shape(*one("drop4_late"))
    assert biased.layout == "biased" and biased.kept is None and not bound
    given = SurgeryPlan(n_experts=16, kept=(tuple(range(10)),) * 3).model_dump(mode="json")
    assert variant_shape(*one("v", variants={"v": {"plan": given}}))[0].kept == (10, 10, 10)
    by_hash = one("v", variants={"v": {"plan": "0" * 64}})
    assert variant_shape(*by_hash) == (variant_shape(*by_hash)[0].model_copy(update={"kept": None}), True)
    foreign, made = one("v", variants={"v": {"file": "theirs", "reference": "baseline"}})
    asked, _ = question(foreign, made, "llama.cpp", (8, 8))
    assert asked.model == "theirs" and asked.variant.kept is None and asked.serving.memory == (8, 8)


def test_fewest_is_a_serving_with_one_spelling() -> None:
    made = spec("drop4_all.fewest,drop4_all")
    assert [item.id for item in configurations_of(made)] == [
        "baseline",
        "drop4_all",
        "baseline.fewest",
        "drop4_all.fewest",
    ]
    few = configurations_of(made)[-1]
    assert few.fewest and few.n_nodes is None
    usual = spec("drop4_all,drop8_all.n2", nodes="fewest", fewest_nodes={"drop4_all": 1, "baseline": 3})
    found = {item.id: item for item in configurations_of(usual)}
    assert found["drop4_all"].n_nodes == 1 and found["baseline"].n_nodes == 3 and found["drop4_all"].fewest
    assert found["drop8_all.n2"].n_nodes == 2 and not found["drop8_all.n2"].fewest
    assert usual.spec_hash() == spec("drop4_all,drop8_all.n2", nodes="fewest").spec_hash()
    with pytest.raises(ValueError, match="either n_nodes or nodes"):
        spec("baseline", nodes="fewest", n_nodes=2)
    with pytest.raises(ValueError, match="schema_version = 2"):
        CampaignSpec.model_validate({
            "id": "a", "model": "a", "corpus": "a", "nodes": "fewest",
            "tasks": dict.fromkeys(("mmlu_5shot", "arc_challenge_25shot", "hellaswag_10shot"), "a"),
        })  # fmt: skip


@pytest.mark.parametrize(("experts", "megabytes"), [(128, 5513), (112, 5021), (96, 4529), (64, 3545)])
def test_distributed_llamas_own_figure(tmp_path: Path, experts: int, megabytes: int) -> None:
    """What it prints as RequiredMemory at the root of four nodes for Qwen3-30B-A3B and 4,096 positions."""
    model = write_shaped_model(tmp_path / "model.gguf", n_layers=48, n_experts=experts, words=False)
    found = footprint(HollowModel(model, 0), ServingShape(memory=(1,) * 4, context_tokens=4096))
    assert found.nodes[0].buffers >> 20 == megabytes
    assert found.file_bytes / 1e9 == pytest.approx({128: 18.29, 112: 16.24, 96: 14.20, 64: 10.11}[experts], abs=0.01)


def test_what_llama_cpp_logs_is_read_and_never_too_little() -> None:
    found = {(one.device, one.endpoint): one for one in read_buffers(LOG)}
    own, other = found["CPU", ""], found["RPC0", "10.0.0.2:50052"]
    assert own.model >= 166.92 * 2**20 and own.output >= 18.55 * 2**20 and own.cache == 0
    assert other.cache - 16 * 2**20 == pytest.approx(0, abs=6000) and other.compute > 128 << 20
    assert [layers for _, layers in read_caches(LOG)] == [2]


def test_reports_of_the_roots_two_processes_count_together() -> None:
    told = [EngineBuffers(model=1), EngineBuffers(worker="a:1", model=10), EngineBuffers(worker="b:1", model=5)]
    found = buffers_by_node(told, {"a:1": "node1", "b:1": "node2"}, "node1")
    assert found["node1"].total == 11 and found["node2"].total == 5


def test_classes_of_tensors() -> None:
    names = {
        "token_embd.weight": "embedding", "output.weight": "output", "output_norm.weight": "norms",
        "blk.3.attn_q.weight": "attention", "blk.3.attn_q_norm.weight": "norms", "blk.3.ffn_gate_inp.weight": "router",
        "blk.3.ffn_up_exps.weight": "experts", "blk.3.ffn_up_shexp.weight": "shared_experts",
        "blk.3.exp_probs_b": "router", "blk.0.ffn_down.weight": "feed_forward", "rope_freqs.weight": "other",
    }  # fmt: skip
    assert {name: class_of(name) for name in names} == names


def test_a_node_gives_what_its_system_and_its_control_group_leave(tmp_path: Path) -> None:
    deep = tmp_path / "system.slice" / "agent.service"
    deep.mkdir(parents=True)
    (deep / "memory.max").write_text("max\n")
    assert memory_limit_bytes("system.slice/agent.service", tmp_path) is None
    (tmp_path / "system.slice" / "memory.max").write_text("4096\n")
    assert memory_limit_bytes("system.slice/agent.service", tmp_path) == 4096
    facts = NodeFacts(
        name="node1", n_cpus=1, memory_bytes=8192, kernel="", python="", load_1min=0, disk_free_bytes=0, utc_ns=0,
    )  # fmt: skip
    assert facts.usable_memory_bytes == 8192 and "reserved_memory_bytes" not in facts.model_dump()
    limited = facts.model_copy(update={"memory_limit_bytes": 4096, "reserved_memory_bytes": 96})
    assert limited.usable_memory_bytes == 4000
