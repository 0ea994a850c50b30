"""Scoring plans: every continuation token is predicted once, from exactly its own history."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.engines.scoring import common_prefix, plan_item
from node_agent.engines.tokens import ScoredPair
from node_agent.engines.workloads import fit_length
from shared.llama.layer_split import layer_shares, layers_by_memory, local_last

_token = st.integers(0, 2)  # few values, so that continuations share beginnings
_context = st.lists(_token, min_size=1, max_size=6).map(tuple)
_continuations = st.lists(st.lists(_token, min_size=1, max_size=5).map(tuple), min_size=1, max_size=6)


@settings(deadline=None)
@given(_context, _continuations, st.data())
def test_each_token_is_predicted_once_from_its_own_history(
    context: tuple[int, ...], continuations: list[tuple[int, ...]], data: st.DataObject
) -> None:
    pairs = [ScoredPair(context, continuation) for continuation in continuations]
    prefix = data.draw(st.integers(0, len(context) - 1))
    plan = plan_item(pairs, prefix)
    predicted: dict[tuple[int, int], int] = {}
    for at, cell in enumerate(plan.cells):
        for number, token in cell.predicts:
            step = cell.position - (len(context) - 1)
            assert (number, step) not in predicted
            predicted[number, step] = token
            # What the cell's sequence has seen is the whole input of that continuation up to here.
            sequence = cell.sequences[0]
            seen = [cell_.token for cell_ in plan.cells[: at + 1] if sequence in cell_.sequences]
            assert [*context[:prefix], *seen] == list((context + continuations[number])[: cell.position + 1])
    expected = {(n, t): token for n, row in enumerate(continuations) for t, token in enumerate(row)}
    assert predicted == expected
    assert plan.n_inputs == sum(len(context) + len(row) - 1 for row in continuations)
    assert plan.n_scored == sum(map(len, continuations))
    assert {s for cell in plan.cells for s in cell.sequences} <= set(range(plan.n_sequences))
    assert len(plan.cells) <= plan.n_inputs - prefix


def test_letter_answers_cost_one_pass_of_the_context() -> None:
    plan = plan_item([ScoredPair((1, 2, 3), (letter,)) for letter in (7, 8, 9, 10)], prefix=1)
    assert [cell.token for cell in plan.cells] == [2, 3]
    assert plan.n_sequences == 1
    assert plan.cells[-1].predicts == ((0, 7), (1, 8), (2, 9), (3, 10))
    assert not plan.cells[0].predicts


def test_common_prefix() -> None:
    assert common_prefix([(1, 2, 3), (1, 2), (1, 2, 4)]) == 2
    assert common_prefix([(1,), (2,)]) == 0
    assert common_prefix([(1, 2)]) == 2


def _assigned(n_layers: int, shares: list[float]) -> list[int]:
    """Units per device by llama.cpp's rule (llama-model.cpp, load_tensors): cumulative float shares, upper bound."""
    total, cumulative, running = sum(shares), [], 0.0
    for share in shares:
        running += share
        cumulative.append(running / total)
    counts = [0] * len(shares)
    for unit in range(n_layers + 1):
        counts[next(d for d, bound in enumerate(cumulative) if bound > unit / (n_layers + 1))] += 1
    return counts


@settings(deadline=None)
@given(st.integers(1, 128), st.lists(st.integers(1, 32), min_size=1, max_size=16))
def test_layers_follow_memory_and_the_output_is_last(n_layers: int, memory: list[int]) -> None:
    counts = layers_by_memory(n_layers, memory)
    assert sum(counts) == n_layers
    assert all(abs(count - n_layers * size / sum(memory)) < 1 for count, size in zip(counts, memory, strict=True))
    assert _assigned(n_layers, layer_shares(counts)) == [*counts[:-1], counts[-1] + 1]


def test_equal_machines_share_evenly() -> None:
    assert layers_by_memory(48, [8] * 4) == [12] * 4
    assert layers_by_memory(5, [8] * 4) == [2, 1, 1, 1]
    assert layers_by_memory(48, [16, 8]) == [32, 16]
    assert layers_by_memory(3, []) == []


def test_own_worker_is_last() -> None:
    assert local_last(["a:1", "b:1", "c:1"], "a:1") == ["b:1", "c:1", "a:1"]
    assert local_last(["b:1"], "a:1") == ["b:1"]


@pytest.mark.parametrize(("length", "expected"), [(2, [1, 2]), (3, [1, 2, 3]), (7, [1, 2, 3, 1, 2, 3, 1])])
def test_prompts_are_cut_or_repeated(length: int, expected: list[int]) -> None:
    assert fit_length([1, 2, 3], length) == expected
