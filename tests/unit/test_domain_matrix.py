"""The matrix holds the paper's ids, and a selection brings its references along."""

import pytest

from orchestrator.domain.campaign.matrix import full_matrix, parse_selection, reference_of
from orchestrator.domain.campaign.serving import MatrixOptions
from shared.kernel.errors import ConfigurationError


def test_full_matrix_is_the_papers_25_and_the_control() -> None:
    ids = [configuration.id for configuration in full_matrix()]
    expected = {"baseline", *(f"drop{n}_{g}" for n in range(1, 9) for g in ("all", "early", "late"))}
    assert set(ids) - {"baseline_biased"} == expected
    assert len(ids) == len(set(ids)) == 26
    assert ids[:5] == ["baseline", "baseline_biased", "drop1_all", "drop1_early", "drop1_late"]


def test_layouts_and_references() -> None:
    for configuration in full_matrix():
        biased = configuration.group != "all" or configuration.id == "baseline_biased"
        assert configuration.layout == ("biased" if biased else "uniform")
        assert reference_of(configuration) == ("baseline_biased" if biased else "baseline")


def test_selection_brings_the_baseline_of_each_layout() -> None:
    assert [c.id for c in parse_selection("drop4_all")] == ["baseline", "drop4_all"]
    assert [c.id for c in parse_selection(" drop2_late, baseline,drop2_late")] == [
        "baseline", "baseline_biased", "drop2_late",
    ]  # fmt: skip
    assert parse_selection("all") == full_matrix()


@pytest.mark.parametrize("text", ["", " , ", "drop0_all", "drop1_mid", "Drop1_all", "drop1_all\n;x"])
def test_unknown_ids_are_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_selection(text)


def test_distributed_llama_refuses_the_biased_layout() -> None:
    options = MatrixOptions(engine="distributed-llama", quantization="Q4_0")
    assert [c.id for c in parse_selection("drop1_all", options)] == ["baseline", "drop1_all"]
    with pytest.raises(ConfigurationError, match="bias"):
        parse_selection("drop1_late", options)


def test_a_serving_is_in_the_id_and_brings_its_baselines() -> None:
    found = {c.id: c for c in parse_selection("drop4_all.k2.n2.q8_0")}
    assert list(found) == ["baseline", "baseline.q8_0.n2.k2", "drop4_all.q8_0.n2.k2"]
    chosen = found["drop4_all.q8_0.n2.k2"]
    assert (chosen.quantization, chosen.n_nodes, chosen.experts_per_token) == ("Q8_0", 2, 2)
    assert [reference_of(c) for c in found.values()] == ["baseline", "baseline", "baseline.q8_0.n2.k2"]
    assert [c.id for c in parse_selection("drop1_late.n2")] == [
        "baseline_biased", "baseline_biased.n2", "drop1_late.n2",
    ]  # fmt: skip


def test_what_is_usual_is_not_said_again() -> None:
    usual = MatrixOptions(n_nodes=4, experts_per_token=4)
    assert [c.id for c in parse_selection("baseline.n4.k4.q4_k_m.llamacpp,baseline.k2", usual)] == [
        "baseline", "baseline.k2",
    ]  # fmt: skip
    assert len(parse_selection("all.n2")) == 28  # and both baselines in the usual serving


def test_distributed_llama_is_a_serving_of_its_own_weights() -> None:
    found = {c.id: c for c in parse_selection("baseline.dllama.n2")}
    chosen = found["baseline.dllama.n2"]
    assert (chosen.engine, chosen.quantization, chosen.n_nodes) == ("distributed-llama", "Q4_0", 2)
    usual = MatrixOptions(engine="distributed-llama", quantization="Q4_0")
    assert [c.id for c in parse_selection("drop1_all.llamacpp", usual)] == [
        "baseline", "baseline.llamacpp", "drop1_all.llamacpp",
    ]  # fmt: skip
    for refused, why in (
        ("baseline.dllama.n3", "1, 2, 4"), ("baseline.dllama.q8_0", "Q4_0 weights only"), ("drop1_late.dllama", "bias"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=why):
            parse_selection(refused)


@pytest.mark.parametrize("text", ["baseline.n2.n4", "baseline.x", "baseline.n0", "baseline.on-pair", "baseline.k"])
def test_servings_that_say_nothing_or_too_much_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_selection(text)


def test_node_sets_and_references_are_the_users() -> None:
    usual = MatrixOptions(node_sets={"pair": ("node3", "node1")}, references={"drop8_all.on-pair": "baseline"})
    found = {c.id: c for c in parse_selection("drop8_all.on-pair", usual)}
    assert list(found) == ["baseline", "drop8_all.on-pair"]
    assert found["drop8_all.on-pair"].nodes == ("node3", "node1")
    assert reference_of(found["drop8_all.on-pair"]) == "baseline"
    with pytest.raises(ConfigurationError, match="not measured"):
        parse_selection("baseline", usual)
    circle = MatrixOptions(references={"baseline": "drop1_all"})
    with pytest.raises(ConfigurationError, match="circle"):
        parse_selection("drop1_all", circle)
