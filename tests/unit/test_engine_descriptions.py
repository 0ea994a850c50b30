"""What is known of engines before anything runs: descriptions, tables of the agent's settings, refusals in specs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from node_agent.engines.distributed_llama import DistributedLlamaSettings
from node_agent.engines.registry import ENGINES as MADE
from node_agent.settings import NodeSettings
from orchestrator.domain.campaign.matrix import parse_selection
from orchestrator.domain.campaign.serving import MatrixOptions
from shared.kernel.errors import ConfigurationError
from shared.kernel.settings import validate_settings
from shared.wire.engines.base import EngineDescription
from shared.wire.engines.registry import ENGINES
from tests.support.extensions import install

LLAMA, DLLAMA = ENGINES.get("llama.cpp"), ENGINES.get("distributed-llama")


def test_every_described_engine_can_be_made_and_describes_itself() -> None:
    assert MADE.names() == ENGINES.names() == ("distributed-llama", "llama.cpp")
    assert all(MADE.get(name).description is ENGINES.get(name) for name in ENGINES.names())


@pytest.mark.parametrize(
    ("engine", "n_nodes", "n_kv_heads", "most", "reason"),
    [
        (LLAMA, 3, 2, 3, ""),
        (DLLAMA, 4, 4, 4, ""),
        (DLLAMA, 4, None, 4, ""),
        (DLLAMA, 3, 4, 2, "distributed-llama runs on 1, 2, 4, ... nodes, not on 3"),
        (DLLAMA, 4, 2, 2, "distributed-llama runs this model on at most 2 nodes, its KV heads, not on 4"),
        (EngineDescription(name="one", tag="one", distributed=False), 2, 8, 1, "one runs on one node, not on 2"),
        (EngineDescription(name="one", tag="one", distributed=False), 1, 8, 1, ""),
    ],
)
def test_numbers_of_nodes(
    engine: EngineDescription, n_nodes: int, n_kv_heads: int | None, most: int, reason: str
) -> None:
    assert engine.most_nodes(n_nodes, n_kv_heads) == most
    assert engine.refuses_nodes(n_nodes, n_kv_heads) == reason
    assert engine.refuses_nodes(most, n_kv_heads) == ""


def test_weights_that_a_configuration_has_unless_it_says_otherwise() -> None:
    assert LLAMA.quantization_for("Q4_K_M") == "Q4_K_M"
    assert DLLAMA.quantization_for("Q4_K_M") == "Q4_0"
    two = EngineDescription(name="two", tag="two", quantizations=("Q4_0", "Q8_0"))
    assert (two.quantization_for("Q8_0"), two.quantization_for("F16")) == ("Q8_0", "Q4_0")


@pytest.mark.parametrize("tag", ["n2", "k4", "f16", "bf16", "Two", "2"])
def test_a_tag_that_means_something_else_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="tag"):
        EngineDescription(name="x", tag=tag)


@pytest.mark.parametrize(
    ("configs", "options", "said"),
    [
        ("baseline", {"engine": "vllm"}, r"unknown engine 'vllm' \(known: distributed-llama, llama.cpp\)"),
        ("baseline.vllm", {}, r"unknown serving .*an engine's tag"),
        ("drop1_early.dllama", {}, "distributed-llama cannot run the layout biased, which drop1_early needs"),
        ("baseline.dllama.n3", {}, r"runs on 1, 2, 4, \.\.\. nodes, not on 3 \(choose 2 nodes\)"),
        ("baseline.dllama.q8_0", {}, 'runs Q4_0 weights only, not Q8_0 .*set quantization = "Q4_0"'),
    ],
)
def test_what_an_engine_cannot_do_is_refused_in_the_spec(configs: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_selection(configs, MatrixOptions(**options))


def node(**fields: object) -> NodeSettings:
    return validate_settings(NodeSettings, {"name": "n", "state_dir": "x", **fields}, where="node.toml")


def test_each_engine_has_a_table_of_its_own() -> None:
    assert set(node().engines) == set(ENGINES.names())
    for given in ({"engines": {"distributed-llama": {"program": "/opt/dllama"}}}, {"dllama": "/opt/dllama"}):
        assert node(**given).engines["distributed-llama"] == DistributedLlamaSettings(program=Path("/opt/dllama"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"engines": {"vllm": {}}}, "engines.vllm: unknown engine 'vllm'"),
        ({"engines": {"llama.cpp": {"threads": 4}}}, "engines.llama.cpp.threads: Extra inputs are not permitted"),
        ({"engines": {"distributed-llama": {"program": 7}}}, "engines.distributed-llama.program: Input is not a valid"),
        ({"engines": 7}, "engines: Input should be a valid dictionary"),
        ({"dllama": "/a", "engines": {"distributed-llama": {"program": "/b"}}}, "given twice: dllama is its former"),
    ],
)
def test_a_wrong_table_is_refused_by_its_field(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        node(**fields)
    assert said in str(refused.value)


def test_an_engine_of_another_package_has_its_tag_in_ids(tmp_path: Path) -> None:
    code = (
        "from shared.wire.engines.base import EngineDescription\n"
        "FAST = EngineDescription(name='fast', tag='fast', quantizations=('Q8_0',), distributed=False)\n"
    )
    install(tmp_path, "fast_engine", code, {"epi.engine_descriptions": {"fast": "fast_engine:FAST"}})
    ask = (
        "from orchestrator.domain.campaign.matrix import parse_selection\n"
        "one = next(c for c in parse_selection('drop2_late.fast.n1') if c.depth)\n"
        "print(one.id, one.engine, one.quantization, one.n_nodes)"
    )
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-c", ask], env={**os.environ, "PYTHONPATH": path}, cwd=Path(__file__).parents[2],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["drop2_late.fast.n1", "fast", "Q8_0", "1"], done.stderr
