"""The uncertainty budget of one power reading: what each cause contributes, and the sum in quadrature.

Every contribution is a relative standard uncertainty (1 sigma). A limit of error without more knowledge counts as a
rectangular distribution: limit / sqrt(3) (GUM 4.3.7); a reading on a grid of q watts: q / sqrt(12).
"""

import math

from pydantic import Field

from meter_bridge.instrument.calibration import CalibrationRecord
from shared.kernel.records import NodeName, Record


class AccuracySettings(Record):
    """What the data sheets say; None where nothing is known."""

    ct_class_percent: float | None = Field(default=None, ge=0, le=50, description="limit of the CT's ratio error")
    ct_phase_error_deg: float | None = Field(default=None, ge=0, le=30, description="limit of the CT's phase error")
    power_factor: float = Field(default=0.6, ge=0.05, le=1, description="of the load; sets what a phase error costs")
    ic_error_percent: float | None = Field(default=None, ge=0, le=50, description="limit of the metering IC's error")
    ic_step_w: float | None = Field(default=None, ge=0, le=10, description="one count of the IC's power register")


_LEAST_POWER_W = 1e-6
"""What is less is the mean of nothing: a share of it says nothing, and of 1e-310 W it is no number any more."""


class Budget(Record):
    """Relative standard uncertainties at one power; `total` is their sum in quadrature, None when nothing is known."""

    node: NodeName
    power_w: float
    contributions: dict[str, float]
    total: float | None


def budget(
    node: NodeName, power_w: float, accuracy: AccuracySettings, calibration: CalibrationRecord | None,
    stated: float | None = None,
) -> Budget:  # fmt: skip
    """Return the budget of a reading of `power_w` watts (> 0).

    A calibration in situ replaces the ratio error, the phase error and the IC's error, which it measured together; the
    step of the IC stays. `stated` is the user's own figure, used where neither is known.
    """
    parts: dict[str, float] = {}
    calibrated = None if calibration is None else calibration.relative_uncertainty(node, power_w)
    if calibrated is not None:
        parts["calibration"] = calibrated
    else:
        if accuracy.ct_class_percent is not None:
            parts["ct_ratio"] = accuracy.ct_class_percent / 100 / math.sqrt(3)
        if accuracy.ct_phase_error_deg is not None:
            # P = V I cos(phi): dP/P = tan(phi) dphi.
            tangent = math.sqrt(1 / accuracy.power_factor**2 - 1)
            parts["ct_phase"] = math.radians(accuracy.ct_phase_error_deg) * tangent / math.sqrt(3)
        if accuracy.ic_error_percent is not None:
            parts["ic"] = accuracy.ic_error_percent / 100 / math.sqrt(3)
        if not parts and stated is not None:
            parts["stated"] = stated
    if accuracy.ic_step_w is not None and parts:
        parts["ic_step"] = accuracy.ic_step_w / math.sqrt(12) / max(power_w, _LEAST_POWER_W)
    total = math.hypot(*parts.values()) if parts else None
    return Budget(node=node, power_w=power_w, contributions=parts, total=total)
