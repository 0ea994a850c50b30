"""Which nodes a configuration runs on, and what is refused before anything is measured."""

import pytest

from orchestrator.campaign.topology import ModelFacts, check_fit, engines_of, nodes_of, roots_of, workers_of
from orchestrator.domain.campaign.matrix import parse_selection
from orchestrator.domain.campaign.serving import MatrixOptions
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Configuration

LAB = ["node1", "node2", "node3", "node4"]
MOE, DENSE = ModelFacts("moe", "", 2), ModelFacts("qwen3-8b", "a dense model (qwen3): there are no experts", None)


def chosen(name: str) -> Configuration:
    usual = MatrixOptions(node_sets={"pair": ("node3", "node1"), "far": ("node9",)})
    return next(one for one in parse_selection(name, usual) if one.id == name)


def test_nodes_in_use() -> None:
    assert nodes_of(chosen("baseline"), LAB) == tuple(LAB)
    assert nodes_of(chosen("baseline.n2"), LAB) == ("node1", "node2")
    assert nodes_of(chosen("baseline.on-pair"), LAB) == ("node3", "node1")
    assert roots_of([chosen("baseline"), chosen("baseline.on-pair"), chosen("baseline.n2")], LAB) == ["node1", "node3"]
    with pytest.raises(ConfigurationError, match="no node node9"):
        nodes_of(chosen("baseline.on-far"), LAB)
    with pytest.raises(ConfigurationError, match="5 nodes are asked for, the lab has 4"):
        nodes_of(chosen("baseline.n5"), LAB)


def test_the_root_of_distributed_llama_has_no_worker() -> None:
    assert workers_of("llama.cpp", LAB[:2]) == ("node1", "node2")
    assert workers_of("distributed-llama", LAB[:2]) == ("node2",)
    assert engines_of(chosen("baseline")) == ("llama.cpp",)
    assert engines_of(chosen("baseline.dllama")) == ("distributed-llama", "llama.cpp")


def test_what_can_never_run_is_refused() -> None:
    check_fit(chosen("drop8_late.k2"), MOE, 4)
    check_fit(chosen("baseline.q8_0.n2"), DENSE, 2)
    check_fit(chosen("drop1_all.dllama"), MOE, 2)
    for name in ("drop1_all", "baseline_biased", "baseline.k2"):
        with pytest.raises(ConfigurationError, match="qwen3-8b can only be measured as it is: a dense model"):
            check_fit(chosen(name), DENSE, 4)
    with pytest.raises(ConfigurationError, match="at most 2 nodes"):
        check_fit(chosen("baseline.dllama"), MOE, 4)
    with pytest.raises(ConfigurationError, match=r"not on 3.*baseline\.dllama\.n2"):
        check_fit(chosen("baseline.dllama"), MOE, 3)
