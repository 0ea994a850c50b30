"""Which configurations give the most accuracy for their joules: the frontier, its ellipses and its probabilities."""

import numpy as np
from pydantic import Field
from scipy import stats

from orchestrator.domain.analysis.bootstrap import Draws
from orchestrator.domain.analysis.campaign_data import CampaignData
from orchestrator.domain.analysis.paired import accuracies
from orchestrator.domain.arrays import Floats
from shared.kernel.records import ConfigurationId, Record

_ELLIPSE_SCALE = float(np.sqrt(stats.chi2.ppf(0.95, 2)))


class ParetoPoint(Record):
    """One configuration in the plane of J/token ratio and accuracy difference, both to the root of its references.

    The ellipse covers the point with 95 %; its axes lie along the plane's, since joules and answers are independent.
    """

    configuration_id: ConfigurationId
    joules_ratio: float
    accuracy_difference: float
    half_width_joules: float | None
    half_width_accuracy: float
    on_frontier: bool
    probability_on_frontier: float | None = Field(description="share of joint draws")


def frontier(joules: Floats, accuracy: Floats) -> np.typing.NDArray[np.bool_]:
    """Return [..., C] True where no other configuration has at most the joules and at least the accuracy."""
    less = joules[..., None, :] <= joules[..., :, None]
    more = accuracy[..., None, :] >= accuracy[..., :, None]
    strict = (joules[..., None, :] < joules[..., :, None]) | (accuracy[..., None, :] > accuracy[..., :, None])
    return np.asarray(~(less & more & strict).any(-1))


def pareto_points(data: CampaignData, draws: Draws, log_joules_ratio: Floats) -> tuple[ParetoPoint, ...]:
    """Return every configuration's point; ratios and differences are to the baseline of its layout, usually served."""
    composite = accuracies(data.sums, data.design)[0]
    log_joules_ratio, drawn_j = data.to_root(log_joules_ratio), data.to_root(draws.log_j_ratio)
    difference = composite - composite[data.root]
    drawn_difference = draws.accuracy - draws.accuracy[:, data.root]
    on = frontier(log_joules_ratio, difference)
    known = bool(np.isfinite(drawn_j).all())
    share = frontier(drawn_j, drawn_difference).mean(0) if known else None
    spread_a = drawn_difference.std(0, ddof=1)
    spread_j = drawn_j.std(0, ddof=1) if known else None
    return tuple(
        ParetoPoint(
            configuration_id=item.id,
            joules_ratio=float(np.exp(log_joules_ratio[row])),
            accuracy_difference=float(difference[row]),
            half_width_joules=(
                None if spread_j is None else float(np.exp(log_joules_ratio[row]) * spread_j[row] * _ELLIPSE_SCALE)
            ),
            half_width_accuracy=float(spread_a[row] * _ELLIPSE_SCALE),
            on_frontier=bool(on[row]),
            probability_on_frontier=None if share is None else float(share[row]),
        )
        for row, item in enumerate(data.configurations)
    )
