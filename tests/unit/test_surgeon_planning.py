"""Layer groups with their rounding, super-experts, budgets, and plans that cannot be."""

import numpy as np
import pytest

from shared.kernel.errors import ConfigurationError
from surgeon.planning import allocation


@pytest.mark.parametrize(("n_layers", "count"), [(48, 12), (94, 23), (8, 2), (7, 1), (6, 1), (4, 1), (3, 1), (1, 1)])
def test_groups_are_quarters_rounded_down_but_never_empty(n_layers: int, count: int) -> None:
    assert allocation.layers_of("early", n_layers) == tuple(range(count))
    assert allocation.layers_of("late", n_layers) == tuple(range(n_layers - count, n_layers))
    assert allocation.layers_of("all", n_layers) == tuple(range(n_layers))


def test_lists_of_layers_are_checked() -> None:
    assert allocation.layers_of([3, 1], 4) == (1, 3)
    for bad in ([0, 0], [4], [-1]):
        with pytest.raises(ConfigurationError, match=r"layers are 0\.\.3"):
            allocation.layers_of(bad, 4)


def test_super_experts_stand_out_in_the_whole_model() -> None:
    norm_max = np.full((3, 8), 2.0)
    norm_max[1, 4] = 500.0
    norm_max[2, 0] = 30.0  # over ten medians, but under a tenth of the largest
    assert allocation.super_experts(norm_max) == [set(), {4}, set()]
    saliency = np.ones((3, 8))
    saliency[1, 4] = 0.0
    plan = allocation.make_plan(saliency, [4, 4, 4], method="x", protected=allocation.super_experts(norm_max))
    assert 4 in plan.kept[1] and 4 not in allocation.make_plan(saliency, [4, 4, 4], method="x").kept[1]


def test_ties_keep_the_lower_id() -> None:
    assert allocation.make_plan(np.zeros((1, 5)), [3], method="x").kept == ((0, 1, 2),)


def test_bisection_gives_flat_layers_more() -> None:
    """A layer whose saliency lies on one expert needs few; one where all weigh the same needs many."""
    saliency = np.array([[100.0, 1, 1, 1, 1, 1, 1, 1], [1.0] * 8])
    peaked, flat = allocation.bisected_budget(saliency, [0, 1], 9, fewest=1)
    assert peaked + flat == 9 and peaked < flat
    assert allocation.bisected_budget(saliency, [1], 5, fewest=2) == [8, 5]
    for total, fewest in ((17, 1), (3, 2)):
        with pytest.raises(ConfigurationError):
            allocation.bisected_budget(saliency, [0, 1], total, fewest=fewest)
    with pytest.raises(ConfigurationError, match="negative"):
        allocation.bisected_budget(-saliency, [0, 1], 9, fewest=1)


def test_impossible_plans_say_why() -> None:
    saliency = np.zeros((2, 4))
    with pytest.raises(ConfigurationError, match="would be left"):
        allocation.make_plan(saliency, [0, 4], method="x")
    with pytest.raises(ConfigurationError, match="biased"):
        allocation.make_plan(saliency, [3, 4], method="x")
    with pytest.raises(ConfigurationError, match="3 experts are protected, 2 are kept"):
        allocation.make_plan(saliency, [2, 2], method="x", protected=[{0, 1, 2}, set()])
    with pytest.raises(ConfigurationError, match="fewer than the 3 active"):
        allocation.make_plan(saliency, [2, 2], method="x", experts_per_token=3)
