"""The estimator of EPI ratios, on arrays: medians of paired energies, clustered accuracy influences, t intervals.

Every function works on one campaign or, with leading axes, on thousands at once: the simulation study runs the code
that the report runs. Shapes: C configurations, R repetitions, G clusters of questions (an MMLU subject, or one question
where there are no subjects), F accuracy fields; `...` stands for any leading axes.

The model: y[c, r] = ln(J/token) = mu_c + block_r + noise with one spread for all configurations, repetitions
interleaved; questions are the same for all configurations, in clusters.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from orchestrator.domain.arrays import Floats, Ints, median_factor

_LEAST_DISCORDANT = 1.0
"""A field's variance is never below that of this many discordant questions: identical answers to n questions do not
prove identical accuracy. Adding it instead (as Agresti and Min, 2005, do) made intervals too wide in the study."""


@dataclass(frozen=True)
class QuestionDesign:
    """The questions that all configurations answered: clusters with their sizes, fields and weights."""

    sizes: Floats
    field: Ints
    weights: Floats

    @property
    def questions(self) -> Floats:
        """Return [F] questions per field."""
        return np.asarray(np.bincount(self.field, self.sizes, self.weights.size), dtype=np.float64)

    @property
    def clusters(self) -> Floats:
        """Return [F] clusters per field."""
        return np.bincount(self.field, minlength=self.weights.size).astype(np.float64)

    @property
    def membership(self) -> Floats:
        """Return [G, F] 1 where the cluster belongs to the field."""
        return np.asarray(self.field[:, None] == np.arange(self.weights.size), dtype=np.float64)

    @property
    def coefficients(self) -> Floats:
        """Return [G] what one correct answer in the cluster adds to the composite: w_f / n_f."""
        return np.asarray((self.weights / self.questions)[self.field])


@dataclass(frozen=True)
class RatioTerms:
    """ln(EPI_c / EPI_reference) and its parts, each [..., C]; the reference's own entries are 0 with variance 0."""

    energy: Floats
    energy_variance: Floats
    accuracy: Floats
    accuracy_variance: Floats
    energy_freedom: Floats
    accuracy_freedom: Floats

    @property
    def value(self) -> Floats:
        """Return ln(EPI ratio) = ln(J ratio) - ln(A ratio)."""
        return self.energy - self.accuracy

    @property
    def variance(self) -> Floats:
        """Return the variance of `value`; energies and answers are measured independently."""
        return self.energy_variance + self.accuracy_variance

    @property
    def freedom(self) -> Floats:
        """Return the degrees of freedom of `variance` (Welch-Satterthwaite, as in GUM G.4)."""
        return satterthwaite(
            np.stack([self.energy_variance, self.accuracy_variance], -1),
            np.stack(np.broadcast_arrays(self.energy_freedom, self.accuracy_freedom), -1),
        )

    def interval(self, confidence: float = 0.95) -> tuple[Floats, Floats]:
        """Return (low, high) of ln(EPI ratio), Student t."""
        half = stats.t.ppf(0.5 + confidence / 2, self.freedom) * np.sqrt(self.variance)
        return self.value - half, self.value + half

    def p_values(self) -> Floats:
        """Return two-sided p-values of 'no difference'; 1 where the variance is 0 (the reference itself)."""
        u = np.sqrt(self.variance)
        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.where(u > 0, np.abs(self.value) / u, 0.0)
        return np.asarray(2 * stats.t.sf(t, self.freedom))


def satterthwaite(variances: Floats, freedoms: Floats) -> Floats:
    """Return effective degrees of freedom of a sum of variances along the last axis; infinite for a zero sum."""
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = np.where(variances > 0, variances**2 / freedoms, 0.0).sum(-1)
        value = variances.sum(-1) ** 2 / parts
    return np.where(parts > 0, np.maximum(value, 1.0), np.inf)


def energy_spread(log_j: Floats) -> tuple[Floats, float]:
    """Return (variance [...] of one ln(J/token) around its configuration and repetition, degrees of freedom).

    Residuals of the two-way model. Missing runs are NaN and allowed for a single campaign [C, R] only; where they leave
    the two-way model no residual, the spread within configurations stands in, which drift can only make larger. NaN
    variance when nothing is left to estimate it from.
    """
    missing = np.isnan(log_j)
    if not missing.any():
        c, r = log_j.shape[-2:]
        freedom = float((c - 1) * (r - 1))
        rest = log_j - log_j.mean(-1, keepdims=True) - log_j.mean(-2, keepdims=True)
        rest = rest + log_j.mean((-2, -1), keepdims=True)
        if freedom == 0:
            return np.full(log_j.shape[:-2], np.nan), 0.0
        return (rest**2).sum((-2, -1)) / freedom, freedom
    if log_j.ndim != 2:
        raise ValueError("missing runs are supported for one campaign at a time")
    rows, columns = np.nonzero(~missing)
    design = np.zeros((rows.size, sum(log_j.shape)))
    design[np.arange(rows.size), rows] = 1
    design[np.arange(rows.size), log_j.shape[0] + columns] = 1
    values = log_j[rows, columns]
    if not rows.size:
        return np.asarray(np.nan), 0.0
    solution, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    freedom = float(rows.size - rank)
    rest = values - design @ solution
    if freedom == 0:
        within = design[:, : log_j.shape[0]]
        rest = values - within @ ((within.T @ values) / np.maximum(within.sum(0), 1))
        freedom = float(rows.size - np.count_nonzero(within.sum(0)))
    return np.asarray((rest @ rest) / freedom if freedom > 0 else np.nan), freedom


def energy_ratio(log_j: Floats, reference: Ints) -> tuple[Floats, Floats]:
    """Return (median over repetitions of ln(J_c,r / J_reference,r), [..., C] repetitions in common).

    Pairs of one repetition are compared, so that what drifts between repetitions cancels.
    """
    difference = log_j - log_j[..., reference, :]
    common = (~np.isnan(difference)).sum(-1).astype(np.float64)
    if not np.isnan(difference).any():
        return np.asarray(np.median(difference, -1)), common
    known = common > 0
    value = np.full(common.shape, np.nan)
    value[known] = np.nanmedian(difference[known], -1)
    return value, common


def accuracies(sums: Floats, design: QuestionDesign) -> tuple[Floats, Floats]:
    """Return (composite [..., C], per field [..., C, F]) from correct answers per cluster [..., C, G]."""
    fields = (sums @ design.membership) / design.questions
    return fields @ design.weights, fields


def influences(sums: Floats, design: QuestionDesign) -> Floats:
    """Return [..., C, G] each cluster's pull on ln(composite): its centred correct answers x w_f / (n_f A)."""
    composite, fields = accuracies(sums, design)
    centred = sums - design.sizes * fields[..., design.field]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(centred * design.coefficients / composite[..., None])


def accuracy_variance(pull: Floats, design: QuestionDesign, per_question: Floats) -> tuple[Floats, Floats]:
    """Return (variance, degrees of freedom) of a sum of cluster influences [..., G], clusters drawn within fields.

    Per field the sum of squares x G/(G - 1), at least that of one discordant question, whose influence on ln A is
    `per_question` [...] = 1 / (A_1 A_2) x (w/n)^2.
    """
    g = design.clusters
    with np.errstate(invalid="ignore", divide="ignore"):
        per_field = (pull**2) @ design.membership * (g / (g - 1))
    share = (design.weights / design.questions) ** 2
    per_field = np.maximum(per_field, _LEAST_DISCORDANT * share * per_question[..., None])
    return per_field.sum(-1), satterthwaite(per_field, np.broadcast_to(g - 1, per_field.shape))


def ratio_terms(log_j: Floats, sums: Floats, reference: Ints, design: QuestionDesign) -> RatioTerms:
    """Estimate ln(EPI_c / EPI_reference[c]) with its variance.

    Args:
        log_j: [..., C, R] ln(J/token), NaN where a run is missing (one campaign only).
        sums: [..., C, G] correct answers per cluster of the common questions.
        reference: [C] index of each configuration's reference; a reference refers to itself.
        design: the clusters.
    """
    spread, freedom = energy_spread(log_j)
    energy, common = energy_ratio(log_j, reference)
    own = reference == np.arange(reference.size)
    factors = np.array([0.0] + [median_factor(int(n)) / n for n in range(1, log_j.shape[-1] + 1)])
    variance = 2 * np.asarray(spread)[..., None] * factors[common.astype(np.int64)]
    variance = np.where(common == 0, np.nan, variance)
    composite, _ = accuracies(sums, design)
    pull = influences(sums, design)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = np.log(composite) - np.log(composite[..., reference])
        per_question = 1 / (composite * composite[..., reference])
    var_a, freedom_a = accuracy_variance(pull - pull[..., reference, :], design, per_question)
    return RatioTerms(
        energy=np.where(own, 0.0, energy),
        energy_variance=np.where(own, 0.0, variance),
        accuracy=np.where(own, 0.0, accuracy),
        accuracy_variance=np.where(own, 0.0, var_a),
        energy_freedom=np.full(energy.shape, freedom),
        accuracy_freedom=freedom_a,
    )


def holm(p_values: Floats, family: NDArray[np.bool_]) -> Floats:
    """Return Holm-adjusted p-values along the last axis for the members of `family` [C]; 1 elsewhere.

    Holm (1979) holds the chance of any false claim at the level for any dependence between the comparisons.
    """
    chosen = p_values[..., family]
    m = chosen.shape[-1]
    adjusted = np.ones_like(p_values)
    if m == 0:
        return adjusted
    order = np.argsort(chosen, -1)
    ordered = np.take_along_axis(chosen, order, -1) * np.arange(m, 0, -1)
    stepped = np.minimum(np.maximum.accumulate(ordered, -1), 1.0)
    back = np.empty_like(stepped)
    np.put_along_axis(back, order, stepped, -1)
    adjusted[..., family] = back
    return adjusted
