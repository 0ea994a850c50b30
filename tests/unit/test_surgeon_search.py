"""EEP: reproducible, resumable, better than chance, over-fitting visible; scoring and skipping do what they say."""

import json
from pathlib import Path

import numpy as np
import pytest

from shared.kernel.errors import ConfigurationError
from shared.llama import model as llama
from surgeon.conversion.to_gguf import convert
from surgeon.observation import statistics
from surgeon.observation.corpus import load_corpus
from surgeon.observation.observe import observe
from surgeon.search.evolution import Candidate, EepOptions, Fitness, FitnessCache, search, split
from surgeon.search.multiple_choice import MultipleChoiceScorer, Question
from surgeon.search.registry import search_named
from surgeon.search.released import ReleasedOptions, mutated, parent_of, search_released
from surgeon.search.skipping import DynamicSkipping, median_ratios
from surgeon.search.task_fitness import TaskFitness
from tests.support.checkpoint_factory import TEXT, make_checkpoint
from tests.support.numpy_forward import NumpyQwen3Moe

WANTED = ((0, 3, 5), (1, 2, 7), (4, 6, 7))


def overlap(candidate: Candidate) -> Fitness:
    """A landscape with one known summit."""
    hits = sum(len(set(a) & set(b)) for a, b in zip(candidate, WANTED, strict=True))
    return Fitness(accuracy=hits / 9, margin=0.0)


OPTIONS = EepOptions(iterations=40, offspring=10, seed=3, parent_margin=0.12)


def test_it_climbs_and_is_reproducible() -> None:
    first, second = (search(8, [3, 3, 3], overlap, OPTIONS) for _ in range(2))
    assert first == second
    assert first.fitness.accuracy >= 8 / 9 > first.generations[0].best.accuracy
    assert [g.best.order for g in first.generations] == sorted(g.best.order for g in first.generations)
    assert search(8, [3, 3, 3], overlap, EepOptions(iterations=3, seed=4)) != first


RELEASED = ReleasedOptions(parent_margin=0.12, seed=5)


def test_the_released_search_keeps_its_budget_and_is_chosen_on_the_dev_split() -> None:
    """The dev split prefers another summit than the training split: of the best 20, the one that it likes best wins."""
    seen: list[Candidate] = []

    def dev(candidate: Candidate) -> Fitness:
        seen.append(candidate)
        return Fitness(accuracy=float(candidate[0] == (0, 3, 5)), margin=0.0)

    first, second = (search_released(8, [3, 3, 3], overlap, dev, RELEASED) for _ in range(2))
    assert first == second
    assert first.n_evaluated == 100 and len(first.generations) == 100
    assert len(seen) == 2 * 20
    assert first.best[0] == (0, 3, 5) or not any(candidate[0] == (0, 3, 5) for candidate in seen[:20])
    accuracies = [overlap(candidate).accuracy for candidate in seen[:20]]
    assert max(accuracies) == first.generations[-1].best.accuracy
    assert first.generations[30].best.accuracy <= first.generations[-1].best.accuracy
    small = search_released(8, [3, 3, 3], overlap, dev, ReleasedOptions(candidates=7, first=31))
    assert small.n_evaluated == 7


def test_released_mutation_changes_a_quarter_of_the_layers_and_few_experts() -> None:
    """Chances as released: a layer changes with 0.25 (at least one does), in it each kept expert with 0.15."""
    random, options = np.random.default_rng(1), ReleasedOptions()
    parent = tuple((0, 1, 2, 3) for _ in range(12))
    layers: list[int] = []
    experts: list[int] = []
    for _ in range(4000):
        child = mutated(parent, 16, options, random)
        assert all(len(set(row)) == 4 and row == tuple(sorted(row)) and max(row) < 16 for row in child)
        changed = [len(set(row) - {0, 1, 2, 3}) for row in child]
        layers.append(sum(map(bool, changed)))
        experts += changed
    # A drawn layer comes out changed with 1 - (1 - 0.15 * 12/13)^4: a replaced expert comes back with 1 in 13.
    comes_out = 1 - (1 - 0.15 * 12 / 13) ** 4
    drawn = 0.25 * 12 / (1 - 0.75**12)
    assert np.mean(layers) == pytest.approx(drawn * comes_out, rel=0.03)


def test_released_parents_lie_within_three_points_of_the_best_or_come_next() -> None:
    accuracies = (0.80, 0.79, 0.775, 0.769, 0.5)
    ranked: list[tuple[Candidate, Fitness]] = [
        (((number,),), Fitness(accuracy=value, margin=0.0)) for number, value in enumerate(accuracies)
    ]
    random = np.random.default_rng(3)
    drawn = np.bincount([parent_of(ranked, ReleasedOptions(), random)[0][0] for _ in range(8000)], minlength=5)
    assert drawn[4] == 0 and drawn[:4] == pytest.approx(2000, rel=0.1)
    assert parent_of(ranked[:1], ReleasedOptions(), random) == ((0,),)


def test_the_operators_budgets_are_not_mixed() -> None:
    assert search_named("eep", {}).model_dump()["operators"] == "published"
    assert search_named("eep", {"iterations": 3}).model_dump()["operators"] == "own", "as before there was a choice"
    with pytest.raises(ConfigurationError, match="iterations is no budget of the published operators"):
        search_named("eep", {"operators": "published", "iterations": 3})
    with pytest.raises(ConfigurationError, match="candidates is no budget of the own operators"):
        search_named("eep", {"operators": "own", "candidates": 3})


def test_a_killed_search_goes_on_without_measuring_twice(tmp_path: Path) -> None:
    calls: list[Candidate] = []

    def counted(candidate: Candidate) -> Fitness:
        calls.append(candidate)
        if len(calls) == 60:
            raise KeyboardInterrupt
        return overlap(candidate)

    path = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        search(8, [3, 3, 3], counted, OPTIONS, cache=FitnessCache(path, "this"))
    with path.open("a") as file:
        file.write('{"key": "half a li')  # what a kill in the middle of a write leaves
    found = search(8, [3, 3, 3], counted, OPTIONS, cache=FitnessCache(path, "this"))
    assert found == search(8, [3, 3, 3], overlap, OPTIONS)
    measured = [candidate for number, candidate in enumerate(calls) if number != 59]
    assert len(measured) == len(set(measured))
    with pytest.raises(ConfigurationError, match="another search"):
        FitnessCache(path, "other")


def test_splits_are_disjoint_and_fixed() -> None:
    train, validation = split(101, 0.5)
    assert sorted(train + validation) == list(range(101)) and split(101, 0.5) == (train, validation)
    with pytest.raises(ConfigurationError):
        split(1)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("search")
    make_checkpoint(root / "hf", n_layers=2, n_experts=8, experts_per_token=2)
    convert(root / "hf", root / "f32.gguf", outtype="F32")
    words = TEXT.split()
    random = np.random.default_rng(0)
    lines = []
    for number in range(24):
        choices = [" ".join(random.choice(words, int(random.integers(1, 4)))) for _ in range(4)]
        lines.append(
            {"question": " ".join(random.choice(words, 6)), "choices": choices, "answer": number % 4, "id": number}
        )
    (root / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


def test_scores_equal_a_plain_forward(lab: Path) -> None:
    """Shared prompts and parallel sequences give the log-likelihoods of one text at a time."""
    reference = NumpyQwen3Moe(lab / "hf")
    lines = [json.loads(line) for line in (lab / "questions.jsonl").read_text().splitlines()]
    questions = [Question(question=x["question"], choices=x["choices"], answer=x["answer"]) for x in lines]
    with llama.Model(lab / "f32.gguf") as model:
        scorer = MultipleChoiceScorer(model, questions, cache_f32=True)
        found = [values for group in scorer._groups() for values in scorer._log_likelihoods(group)]
        accuracy = scorer.score().accuracy
        scorer.close()
        right = 0
        for question, values in zip(questions, found, strict=True):
            prompt = f"Question: {question.question}\nAnswer:"
            head = model.tokenize(prompt)
            expected = []
            for choice in question.choices:
                tokens = model.tokenize(f"{prompt} {choice}")
                log_p, _ = reference.forward(tokens)
                expected.append(sum(log_p[at - 1, tokens[at]] for at in range(len(head), len(tokens))))
            np.testing.assert_allclose(values, expected, atol=1e-3)
            scaled = [value / len(choice) for value, choice in zip(values, question.choices, strict=True)]
            right += int(np.argmax(scaled)) == question.answer
    assert accuracy == right / len(questions)


def test_search_on_a_model_beats_its_start_and_keeps_the_splits_apart(lab: Path) -> None:
    with TaskFitness(lab / "f32.gguf", [(lab / "questions.jsonl", "")]) as fitness:
        found = search(8, [4, 4], fitness.train, EepOptions(iterations=3, offspring=6))
        again = fitness.train(found.best)
        assert again.accuracy == found.fitness.accuracy
        assert found.fitness.order >= found.generations[0].best.order
        assert len(fitness.validation_answers(found.best)) == 12
        assert fitness.validation(found.best) != found.fitness


@pytest.mark.parametrize("naming", ["qwen3", "qwen2", "mixtral"])
def test_skipping_counts_and_changes(tmp_path: Path, naming: str) -> None:
    make_checkpoint(tmp_path / "hf", n_layers=2, n_experts=8, experts_per_token=2, naming=naming)
    convert(tmp_path / "hf", tmp_path / "f32.gguf", outtype="F32")
    (tmp_path / "text.txt").write_text(TEXT[:400])
    seen = observe(tmp_path / "f32.gguf", load_corpus([tmp_path / "text.txt"]))
    betas = median_ratios(seen)
    assert betas.shape == (2,) and (betas > 0).all() and (betas < 1).all()

    def first_logits(skipper: DynamicSkipping) -> np.ndarray:
        with (
            llama.Model(tmp_path / "f32.gguf") as model,
            llama.Context(model, context_tokens=128, batch_tokens=128, cache_f32=True, on_tensor=skipper) as context,
        ):
            tokens = model.tokenize(TEXT[:400])[:100]
            context.decode(tokens, range(len(tokens)))
            return context.logits(50).copy()

    nothing, half, everything = (
        DynamicSkipping(values, 2, renormalises=naming != "qwen2")  # type: ignore[arg-type]
        for values in ([0.0, 0.0], betas, [1.0, 1.0])  # type: ignore[arg-type]
    )
    plain = first_logits(nothing)
    assert nothing.share_skipped == 0.0
    assert np.abs(first_logits(half) - plain).max() > 0
    assert 0.15 < half.share_skipped < 0.35  # of two experts, the second of about every other token
    first_logits(everything)
    assert everything.share_skipped == pytest.approx(0.5, abs=0.01)
    assert statistics.RATIO_BINS == 1000


def test_bad_questions_are_named(tmp_path: Path) -> None:
    from surgeon.search.multiple_choice import load_questions

    path = tmp_path / "q.jsonl"
    for line in (
        '{"question": "x", "choices": ["a"], "answer": 0}',
        "[]",
        '{"question": "x", "choices": ["a", "b"], "answer": 2}',
    ):
        path.write_text('{"question": "x", "choices": ["a", "b"], "answer": 1}\n' + line)
        with pytest.raises(ConfigurationError, match=r"q\.jsonl:2"):
            load_questions(path)
