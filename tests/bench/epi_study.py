"""Simulated campaigns with known truth, thousands at once, for the estimator in `orchestrator.domain.analysis.paired`.

A campaign: C configurations (the first is the reference), R interleaved repetitions with block drift, questions in
subjects with random difficulty, the same questions for all configurations. Correctness follows a probit model with a
shared part (question, subject) and an own part per configuration, so that answers of two configurations are
correlated as those of a model and its pruned variant are: their discordant share is `discordance` where accuracies are
equal.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from orchestrator.domain.analysis.paired import QuestionDesign, holm, ratio_terms
from orchestrator.domain.campaign.design_power import Expectation, power, resolution
from orchestrator.domain.campaign.protocol import PUBLISHED_FIELDS
from orchestrator.domain.campaign.sequential import StoppingRule, established

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """What is true of every simulated campaign."""

    log_energy: tuple[float, ...] = (0.0,) * 9
    accuracy: tuple[float, ...] = (0.7,) * 9
    repetitions: int = 3
    cv: float = 0.008
    block_cv: float = 0.01
    subjects: tuple[int, ...] = (57, 0, 0)  # subjects per field; 0: every question by itself
    questions: tuple[int, ...] = (570, 300, 300)
    discordance: float = 0.05
    subject_share: float = 0.1  # of the shared difficulty's variance

    @property
    def log_ratio(self) -> Floats:
        """True ln(EPI_c / EPI_0)."""
        energy, accuracy = np.array(self.log_energy), np.log(self.accuracy)
        return np.asarray(energy - energy[0] - (accuracy - accuracy[0]))

    @property
    def design(self) -> QuestionDesign:
        """The clusters of one campaign."""
        sizes = [np.full(s or n, n / (s or n)) for s, n in zip(self.subjects, self.questions, strict=True)]
        field = np.repeat(np.arange(len(sizes)), [size.size for size in sizes])
        return QuestionDesign(np.concatenate(sizes), field, np.full(len(sizes), 1 / len(sizes)))


@cache
def own_share(accuracy: float, discordance: float) -> float:
    """Share of own variance in the probit model that gives the discordant share between two equal accuracies."""
    threshold = stats.norm.ppf(accuracy)

    def wrong(share: float) -> float:
        both = stats.multivariate_normal([0, 0], [[1, 1 - share], [1 - share, 1]]).cdf([threshold, threshold])
        return 2 * (accuracy - float(both)) - discordance

    return float(optimize.brentq(wrong, 1e-6, 0.999))


def simulate(truth: Truth, campaigns: int, seed: int, chunk: int = 100) -> Iterator[tuple[Floats, Floats]]:
    """Yield (log_j [n, C, R], sums [n, C, G]) in chunks of campaigns."""
    rng = np.random.default_rng(seed)
    c = len(truth.accuracy)
    own = own_share(truth.accuracy[0], truth.discordance)
    thresholds = stats.norm.ppf(truth.accuracy).astype(np.float32)
    for start in range(0, campaigns, chunk):
        n = min(chunk, campaigns - start)
        block = rng.normal(0, truth.block_cv, (n, 1, truth.repetitions))
        noise = rng.normal(0, truth.cv, (n, c, truth.repetitions))
        log_j = np.array(truth.log_energy)[:, None] + block + noise
        parts = []
        for subjects, questions in zip(truth.subjects, truth.questions, strict=True):
            shared = rng.standard_normal((n, 1, questions), dtype=np.float32)
            if subjects:
                effect = rng.standard_normal((n, 1, subjects), dtype=np.float32)
                share = truth.subject_share
                shared = np.sqrt(1 - share) * shared + np.sqrt(share) * np.repeat(effect, questions // subjects, -1)
            latent = np.sqrt(own) * rng.standard_normal((n, c, questions), dtype=np.float32)
            right = latent + np.float32(np.sqrt(1 - own)) * shared < thresholds[:, None]
            parts.append(right.reshape(n, c, subjects or questions, -1).sum(-1, dtype=np.float64))
        yield log_j, np.concatenate(parts, -1)


@dataclass(frozen=True)
class Figures:
    """What a study of one truth found, as shares of campaigns (coverage: of intervals)."""

    campaigns: int
    coverage: float
    any_claim: float
    claims: Floats  # [C] share of campaigns that name the configuration better


def study(truth: Truth, campaigns: int, seed: int) -> Figures:
    """Run the report's estimator and verdict on simulated campaigns."""
    reference = np.zeros(len(truth.accuracy), dtype=np.int64)
    family = np.arange(reference.size) != reference
    covered = np.zeros(reference.size)
    better = np.zeros(reference.size)
    claims = 0.0
    for log_j, sums in simulate(truth, campaigns, seed):
        terms = ratio_terms(log_j, sums, reference, truth.design)
        low, high = terms.interval()
        covered += ((low <= truth.log_ratio) & (truth.log_ratio <= high)).sum(0)
        named = holm(terms.p_values(), family) < 0.05
        better += (named & (terms.value < 0)).sum(0)
        claims += named.any(-1).sum()
    return Figures(campaigns, float(covered[family].mean() / campaigns), float(claims / campaigns), better / campaigns)


def sequential_study(truth: Truth, campaigns: int, seed: int) -> float:
    """Return the share of campaigns without any true difference that name one at any analysis.

    A analysis after each repetition from the second on; with repetition k of R the k-th share of the questions arrives.
    Questions are independent here, so that shares of them are campaigns of the same kind.
    """
    r = truth.repetitions
    rule = StoppingRule(information=tuple(k / r for k in range(2, r + 1)))
    reference = np.zeros(len(truth.accuracy), dtype=np.int64)
    design = replace(truth, subjects=(0, 0, 0)).design
    share = np.arange(design.sizes.size) % r
    wrong = 0
    for log_j, sums in simulate(replace(truth, subjects=(0, 0, 0)), campaigns, seed):
        named = np.zeros(log_j.shape[0], dtype=bool)
        for analysis, k in enumerate(range(2, r + 1)):
            here = share < k
            part = QuestionDesign(design.sizes[here], design.field[here], design.weights)
            terms = ratio_terms(log_j[..., :k], sums[..., here], reference, part)
            named |= established(terms.p_values()[:, 1:], analysis, rule).any(-1)
        wrong += int(named.sum())
    return wrong / campaigns


def predicted_power(truth: Truth, effect: float) -> float:
    """Return what the planner promises for one variant better by `effect`."""
    weights = dict.fromkeys(PUBLISHED_FIELDS, 1 / 3)
    expected = Expectation(
        cv=truth.cv, accuracy=truth.accuracy[0], discordance=truth.discordance, comparisons=len(truth.accuracy) - 1
    )
    questions = dict(zip(PUBLISHED_FIELDS, truth.questions, strict=True))
    return power(effect, resolution(questions, weights, truth.repetitions, expected), expected.comparisons)
