"""Fits a device's clock to the host's monotonic clock: offset, drift, jitter, each with its uncertainty.

A line reaches the host after a delay that is never negative: a constant part (averaging, UART) and a random part
(scheduling) with a long tail upwards. So in each second only the earliest arrival counts, and the line is laid through
those minima: a median slope first (Theil and Sen), least squares on the points near it after. The constant part of the
delay cannot be told from the clock's offset here; the marker load finds it (`lag`).

Not here: UTC. The host's monotonic clock is never stepped; `anchor` ties it to UTC.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.kernel.clock import NS_PER_S

BLOCK_S = 1.0
HORIZON_BLOCKS = 600
REFIT_BLOCKS = 5
STEP_S = 0.5
"""A frame that seems to arrive this much before it was sent proves that the device's clock was stepped."""
_SLOPE_FROM_S = 20.0
"""Below this span a slope is noise: 5 ms of jitter over 20 s are 250 ppm already."""
_LARGEST_DRIFT = 2e-3
_LATE_S = 0.1
_LATE_BLOCKS = 300
"""A whole second of lines this late is a stall of the host, not the clock; after so many in a row it is the clock."""
_MS = 1_000_000
_TICK_S = 1e-3
_JACKKNIFE = 6


@dataclass(frozen=True, slots=True)
class ClockFit:
    """host = device + offset_s + drift (device - reference), all in seconds from the time base's own origin.

    `drift` is how much faster the host's clock runs than the device's, relative (1e-6 is 1 ppm), with its standard
    uncertainty; `jitter_s` is the median delay of a line above the fitted line.
    """

    offset_s: float
    drift: float
    reference_s: float
    drift_uncertainty: float
    jitter_s: float
    blocks: int
    span_s: float


class TimeBase:
    """Maps milliseconds of one device clock, which never was reset meanwhile, to nanoseconds of the host's."""

    def __init__(self, device_ms: int, mono_ns: int) -> None:
        self._origin_ms = device_ms
        self._origin_ns = mono_ns
        self._times: list[float] = []
        self._delays: list[float] = []
        self._late_blocks = 0
        self._block: int | None = None
        self._best: tuple[float, float] = (0.0, 0.0)
        self._since_fit = 0
        self._fit = ClockFit(0.0, 0.0, 0.0, _LARGEST_DRIFT, 0.0, 0, 0.0)
        self._last_ns = mono_ns - 1

    @property
    def fit(self) -> ClockFit:
        """The fit in force."""
        return self._fit

    def residual_s(self, device_ms: int, mono_ns: int) -> float:
        """Return how much later than fitted a line arrived; clearly below zero is impossible with an honest clock."""
        device_s, delay_s = self._point(device_ms, mono_ns)
        return delay_s - self._delay_at(device_s)

    def add(self, device_ms: int, mono_ns: int) -> int:
        """Take one line into the fit and return its fitted host time in monotonic nanoseconds, strictly increasing."""
        device_s, delay_s = self._point(device_ms, mono_ns)
        block = int(device_s // BLOCK_S)
        if block != self._block:
            self._close_block()
            self._block, self._best = block, (device_s, delay_s)
        elif delay_s < self._best[1]:
            self._best = (device_s, delay_s)
        if self._fit.blocks == 0 and delay_s < self._delay_at(device_s):
            # Before the first fit an earlier arrival moves the line at once.
            self._fit = ClockFit(delay_s, 0.0, device_s, _LARGEST_DRIFT, 0.0, 0, 0.0)
        fitted_ns = self._origin_ns + round((device_s + self._delay_at(device_s)) * NS_PER_S)
        self._last_ns = max(fitted_ns, self._last_ns + 1)
        return self._last_ns

    def prime(self, device_ms: int, mono_ns: int) -> None:
        """Begin with what is known already: of the lines that waited to be stamped, the one that came soonest."""
        device_s, delay_s = self._point(device_ms, mono_ns)
        self._fit = ClockFit(min(delay_s, 0.0), 0.0, device_s, _LARGEST_DRIFT, 0.0, 0, 0.0)
        self._last_ns = -(2**62)  # nothing has been stamped yet, so nothing must be kept in order

    def _point(self, device_ms: int, mono_ns: int) -> tuple[float, float]:
        elapsed_ms = device_ms - self._origin_ms
        # Whole nanoseconds are subtracted as integers: a float of seconds since boot would cost microseconds.
        return elapsed_ms / 1e3, (mono_ns - self._origin_ns - elapsed_ms * _MS) / NS_PER_S

    def _delay_at(self, device_s: float) -> float:
        return self._fit.offset_s + self._fit.drift * (device_s - self._fit.reference_s)

    def _close_block(self) -> None:
        if self._block is None:
            return
        late = self._fit.blocks >= 4 * REFIT_BLOCKS and self._best[1] - self._delay_at(self._best[0]) > _LATE_S
        self._late_blocks = self._late_blocks + 1 if late else 0
        if late and self._late_blocks < _LATE_BLOCKS:
            return
        self._times.append(self._best[0])
        self._delays.append(self._best[1])
        del self._times[:-HORIZON_BLOCKS], self._delays[:-HORIZON_BLOCKS]
        self._since_fit += 1
        # Young fits are renewed each second, old ones seldom: they hardly move.
        if self._since_fit >= REFIT_BLOCKS or len(self._times) < 4 * REFIT_BLOCKS:
            self._since_fit = 0
            self._fit = fit_clock(np.asarray(self._times), np.asarray(self._delays))


def fit_clock(device_s: NDArray[np.float64], delay_s: NDArray[np.float64]) -> ClockFit:
    """Lay the line through block minima of delay (host minus device) over device time, both 1-D, in seconds."""
    n = len(device_s)
    reference = float(device_s.mean())
    span = float(device_s[-1] - device_s[0])
    x = device_s - reference
    if span < _SLOPE_FROM_S or n < 8:
        offset = float(np.quantile(delay_s, 0.1)) if n > 8 else float(delay_s.min())
        return ClockFit(offset, 0.0, reference, _LARGEST_DRIFT, float(np.median(delay_s) - offset), n, span)
    half = n // 2
    slope = float(np.median((delay_s[n - half :] - delay_s[:half]) / (x[n - half :] - x[:half])))
    slope, offset, kept = _refine(x, delay_s, slope)
    uncertainty = _slope_uncertainty(x[kept], delay_s[kept], span)
    slope = float(np.clip(slope, -_LARGEST_DRIFT, _LARGEST_DRIFT))
    jitter = float(np.median(delay_s - (offset + slope * x)))
    return ClockFit(offset, slope, reference, uncertainty, max(jitter, 0.0), n, span)


def _slope_uncertainty(x: NDArray[np.float64], delay_s: NDArray[np.float64], span_s: float) -> float:
    """Return the standard uncertainty of the slope of the line through the points.

    Scheduling delays come in spells, so neighbouring residuals are alike and the textbook formula is too proud: a
    jackknife over contiguous sixths is taken. The device's clock counts whole milliseconds, which may fall alike all
    the time: one of them over the span, as 1 ms / sqrt(12), is added.
    """
    pieces = np.array_split(np.arange(len(x)), _JACKKNIFE)
    slopes = np.array([_line(np.delete(x, piece), np.delete(delay_s, piece))[0] for piece in pieces])
    jackknife = float(np.sqrt((_JACKKNIFE - 1) / _JACKKNIFE * np.sum((slopes - slopes.mean()) ** 2)))
    return float(np.hypot(jackknife, _TICK_S / 12**0.5 / span_s))


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and offset of the least-squares line."""
    mean_x, mean_y = float(x.mean()), float(y.mean())
    moment = float(np.sum((x - mean_x) ** 2))
    slope = float(np.sum((x - mean_x) * (y - mean_y))) / moment if moment > 0 else 0.0
    return slope, mean_y - slope * mean_x


def _refine(
    x: NDArray[np.float64], delay_s: NDArray[np.float64], slope: float
) -> tuple[float, float, NDArray[np.bool_]]:
    """Least squares on the points near the line, three times; late points are dropped sooner than early ones."""
    offset = float(np.median(delay_s - slope * x))
    kept = np.ones(len(x), dtype=np.bool_)
    for _ in range(3):
        residual = delay_s - (offset + slope * x)
        # Never narrower than half a millisecond: the steps of the device's counter are no outliers.
        width = max(1.4826 * float(np.median(np.abs(residual - np.median(residual)))), _TICK_S / 2)
        kept = (residual < 2 * width) & (residual > -4 * width)
        if kept.sum() < 4:
            kept = np.ones(len(x), dtype=np.bool_)
        slope, offset = _line(x[kept], delay_s[kept])
    return slope, offset, kept
