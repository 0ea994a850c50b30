"""Calibration: fit gain and offset of each channel to known loads, with residuals and uncertainty; refuse nonsense.

true = gain * raw + offset. A record is never changed: a new calibration is a new version (`calibration_store`). Raw
values stay in the trace and the calibration is applied on reading, so old runs can be read again with another one.

Uncertainties follow the GUM: standard uncertainties (1 sigma), combined in quadrature. The covariance of the weighted
least-squares line is scaled up by chi-square when the points scatter more than the reference explains.
"""

import itertools
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from shared.kernel.errors import DataError
from shared.kernel.records import NodeName, Record

FEWEST_LOADS = 4
SMALLEST_SPAN = 3.0
"""The largest load must be this many times the smallest: gain and offset cannot be told apart on less."""
GAIN_RANGE = (0.5, 2.0)
LARGEST_OFFSET_W = 5.0
LARGEST_RESIDUAL = 0.05
OLD_AFTER_DAYS = 365.0
_SHORTEST_STEP_W = 0.2


class LoadPoint(Record):
    """One known load on one channel: what the reference meter and what the raw channel showed, in watts."""

    node: NodeName
    reference_w: float = Field(ge=0.001, le=1e5)
    measured_w: float = Field(ge=-1e5, le=1e5)
    measured_uncertainty_w: float = Field(default=0.0, ge=0, le=1e5, description="standard uncertainty of the mean")


class CalibrationDraft(Record):
    """What a calibration is made from."""

    reference: str = Field(min_length=1, max_length=200, description="the reference meter: maker, type, serial number")
    reference_relative_uncertainty: float = Field(ge=1e-6, le=0.05, description="standard uncertainty of the reference")
    points: tuple[LoadPoint, ...] = Field(min_length=FEWEST_LOADS)
    note: str = Field(default="", max_length=1000)


class ChannelCalibration(Record):
    """The line of one channel. `covariance` is of gain and offset, in watts."""

    node: NodeName
    gain: float
    offset_w: float
    gain_uncertainty: float
    offset_uncertainty_w: float
    covariance: float
    residual_rms_w: float
    residual_max_w: float
    lowest_w: float
    highest_w: float

    def correct(self, raw_w: float) -> float:
        """Return true watts of a raw reading; NaN stays NaN."""
        return self.gain * raw_w + self.offset_w


class CalibrationRecord(Record):
    """One dated version of an instrument's calibration."""

    schema_version: Literal[1] = 1
    version: int = Field(ge=1)
    created_utc_ns: int
    instrument: str
    draft: CalibrationDraft
    channels: tuple[ChannelCalibration, ...]

    @property
    def id(self) -> str:
        """The name by which results cite this record."""
        return f"cal-{self.version:04d}"

    def age_days(self, at_utc_ns: int) -> float:
        """Return the age of the calibration."""
        return (at_utc_ns - self.created_utc_ns) / 86_400e9

    def relative_uncertainty(self, node: str, power_w: float) -> float | None:
        """Return the relative standard uncertainty of a corrected reading of `power_w`; None for an unknown node.

        The reference's own uncertainty is common to all points, so it does not shrink with their number.
        """
        channel = next((channel for channel in self.channels if channel.node == node), None)
        if channel is None or power_w <= 0:
            return None
        raw_w = (power_w - channel.offset_w) / channel.gain
        variance = (
            channel.offset_uncertainty_w**2
            + (raw_w * channel.gain_uncertainty) ** 2
            + 2 * raw_w * channel.covariance
            + (power_w * self.draft.reference_relative_uncertainty) ** 2
        )
        return math.sqrt(max(variance, 0.0)) / power_w


def fit_calibration(
    draft: CalibrationDraft, *, version: int, created_utc_ns: int, instrument: str, nodes: tuple[NodeName, ...]
) -> CalibrationRecord:
    """Fit every channel that has points.

    Raises:
        DataError: the points are nonsense; the message names the node and what to do.
    """
    unknown = sorted({point.node for point in draft.points} - set(nodes))
    if unknown:
        raise DataError(f"no channel is named {unknown[0]!r}", where="points", hint=f"channels: {', '.join(nodes)}")
    channels = tuple(
        _fit_channel(node, points, draft.reference_relative_uncertainty)
        for node in nodes
        if (points := [point for point in draft.points if point.node == node])
    )
    return CalibrationRecord(
        version=version, created_utc_ns=created_utc_ns, instrument=instrument, draft=draft, channels=channels
    )


def _fit_channel(node: NodeName, points: list[LoadPoint], reference_uncertainty: float) -> ChannelCalibration:
    _check_loads(node, points)
    x = np.array([point.measured_w for point in points])
    y = np.array([point.reference_w for point in points])
    # The reference's scale error counts as scatter here and once more, as common to all points, on use: the safe side.
    sigma = np.hypot([point.measured_uncertainty_w for point in points], y * reference_uncertainty)
    design = np.column_stack((x, np.ones_like(x))) / sigma[:, None]
    if np.linalg.matrix_rank(design) < 2:
        raise DataError("the channel shows the same power at every load", where=node, hint="is its CT on a lead?")
    (gain, offset), *_ = np.linalg.lstsq(design, y / sigma, rcond=None)
    residual = y - (gain * x + offset)
    chi2 = float(np.sum((residual / sigma) ** 2)) / (len(points) - 2)
    covariance = np.linalg.inv(design.T @ design) * max(chi2, 1.0)
    _check_line(node, float(gain), float(offset), residual / y)
    return ChannelCalibration(
        node=node, gain=float(gain), offset_w=float(offset), gain_uncertainty=math.sqrt(covariance[0, 0]),
        offset_uncertainty_w=math.sqrt(covariance[1, 1]), covariance=float(covariance[0, 1]),
        residual_rms_w=float(np.sqrt(np.mean(residual**2))), residual_max_w=float(np.abs(residual).max()),
        lowest_w=float(y.min()), highest_w=float(y.max()),
    )  # fmt: skip


def _check_loads(node: str, points: list[LoadPoint]) -> None:
    loads = sorted(point.reference_w for point in points)
    distinct = 1 + sum(b - a >= _SHORTEST_STEP_W for a, b in itertools.pairwise(loads))
    if distinct < FEWEST_LOADS:
        raise DataError(
            f"{distinct} different loads, at least {FEWEST_LOADS} are needed", where=node,
            hint="use resistive loads spread over 3 to 50 W",
        )  # fmt: skip
    if loads[-1] < SMALLEST_SPAN * loads[0]:
        raise DataError(
            f"the loads span only {loads[0]:g} to {loads[-1]:g} W", where=node,
            hint=f"the largest must be at least {SMALLEST_SPAN:g} times the smallest",
        )  # fmt: skip


def _check_line(node: str, gain: float, offset: float, relative: NDArray[np.float64]) -> None:
    if gain < 0:
        raise DataError("the reading falls as the load rises", where=node, hint="turn the CT round and measure again")
    if not GAIN_RANGE[0] <= gain <= GAIN_RANGE[1]:
        raise DataError(
            f"a gain of {gain:.3g} is no calibration error", where=node,
            hint="check the CT's ratio, the number of turns and that reference and channel see the same lead",
        )  # fmt: skip
    if abs(offset) > LARGEST_OFFSET_W:
        raise DataError(f"an offset of {offset:+.2f} W is no calibration error", where=node, hint="check the wiring")
    worst = float(np.abs(relative).max())
    if worst > LARGEST_RESIDUAL:
        raise DataError(
            f"a point lies {worst:.1%} off the line", where=node,
            hint="was the load steady, and was each reference value written beside its own reading?",
        )  # fmt: skip
