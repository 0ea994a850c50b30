"""The rankings' declarations: found by name, honest about what they read, parameters refused by name."""

import numpy as np
import pytest

from shared.kernel.errors import ConfigurationError
from surgeon.observation.statistics import COUNTS, GRIDS, MAXIMA
from surgeon.rankings.base import RankingInputs
from surgeon.rankings.registry import RANKINGS, ranking_named

ALL = ("aimer", "ean", "easy_ep", "frequency", "random", "reap", "soft_activation", "weighted_ean")


class Recorder(RankingInputs):
    """Inputs that remember which statistics were read."""

    read: list[str]

    def total(self, statistic: str) -> np.ndarray:  # type: ignore[type-arg]
        self.read.append(statistic)
        return np.ones((self.n_layers, self.n_experts))


def test_all_are_found() -> None:
    assert RANKINGS.names() == ALL


@pytest.mark.parametrize("name", ALL)
def test_a_ranking_reads_what_it_declares(name: str) -> None:
    ranking = RANKINGS.get(name)
    assert ranking.source
    assert set(ranking.statistics) <= {*GRIDS, *COUNTS, *MAXIMA}
    if not ranking.weight_formats:
        inputs = Recorder(2, 4)
        object.__setattr__(inputs, "read", [])
        assert ranking_named(name).saliency(inputs).shape == (2, 4)
        assert set(inputs.read) == set(ranking.statistics)


def test_what_a_method_needs_and_is_not_given_is_said() -> None:
    with pytest.raises(ConfigurationError, match="needs expert statistics"):
        ranking_named("reap").saliency(RankingInputs(2, 4))
    with pytest.raises(ConfigurationError, match="aimer reads the weights"):
        ranking_named("aimer").saliency(RankingInputs(2, 4))


def test_parameters_are_checked_by_name() -> None:
    inputs = RankingInputs(2, 4)
    five = ranking_named("random", {"seed": 5}).saliency(inputs)
    assert (ranking_named("random", seed=5).saliency(inputs) == five).all()
    assert (ranking_named("random", {"seed": 5}, seed=6).saliency(inputs) == five).all()
    assert (ranking_named("random", seed=6).saliency(inputs) != five).any()
    for method, parameters, said in (
        ("reap", {"seed": 1}, "method reap: seed: Extra inputs are not permitted"),
        ("random", {"seed": "x"}, "method random: seed: Input should be a valid integer"),
        ("nonsense", {}, r"unknown method 'nonsense' \(known: aimer, ean,"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            ranking_named(method, parameters)
