"""The matrix holds the seed's ids, and a selection brings its references along."""

import pytest

from orchestrator.domain.matrix import full_matrix, parse_selection, reference_of
from orchestrator.domain.records import MatrixOptions
from shared.errors import ConfigurationError


def test_full_matrix_is_the_seeds_25_and_the_control() -> None:
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


@pytest.mark.parametrize("text", ["", " , ", "drop9_all", "drop0_all", "drop1_mid", "Drop1_all", "drop1_all\n;x"])
def test_unknown_ids_are_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_selection(text)


def test_distributed_llama_refuses_the_biased_layout() -> None:
    options = MatrixOptions(engine="distributed-llama", quantization="Q40")
    assert [c.id for c in parse_selection("drop1_all", options)] == ["baseline", "drop1_all"]
    with pytest.raises(ConfigurationError, match="bias"):
        parse_selection("drop1_late", options)
