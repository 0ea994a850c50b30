"""Says what measures: the meter's own word, the user's knowledge, the calibration in force.

Whether it is emulated is only ever the meter's word. Not here: the calibration itself (`calibration`).
"""

from pydantic import Field

from meter_bridge.instrument.budget import AccuracySettings, budget
from meter_bridge.instrument.calibration import CalibrationRecord
from meter_bridge.protocol.frames import Hello
from shared.kernel.records import Instrument, NodeName, Record


class InstrumentSettings(Record):
    """What is known of the instrument and cannot be asked over the wire."""

    name: str = Field(
        default="epi-meter", min_length=1, max_length=200, description="its name, where it does not say one itself"
    )
    measurement_point: str = Field(
        default="AC inlet of each node", min_length=1, max_length=200, description="what it measures"
    )
    relative_uncertainty: float | None = Field(
        default=None, ge=0, le=1, description="standard uncertainty of power, where no calibration or class is known"
    )
    accuracy: AccuracySettings = Field(
        default=AccuracySettings(), description="its accuracy class, for the uncertainty budget"
    )


def instrument_of(hello: Hello | None, known: InstrumentSettings, *, vouched: bool) -> Instrument:
    """Return the instrument; without a hello its kind is unknown, unless the settings vouch for a meter without one."""
    if hello is None:
        return Instrument(
            name=known.name, kind="ac_meter" if vouched else "unknown", emulated=False,
            measurement_point=known.measurement_point,
        )  # fmt: skip
    return Instrument(
        name=hello.device, kind=hello.kind, emulated=hello.emulated, firmware=hello.firmware,
        calibration_id=hello.calibration, sample_rate_hz=hello.rate_hz,
        measurement_point=hello.measurement_point or known.measurement_point,
    )  # fmt: skip


def with_calibration(
    instrument: Instrument,
    known: InstrumentSettings,
    calibration: CalibrationRecord | None,
    mean_w: dict[NodeName, float],
) -> Instrument:
    """Return the instrument with the calibration applied on reading and the largest relative uncertainty of its nodes.

    `mean_w` is the mean power of each node, at which the budget is made. Null when of any node nothing is known.
    """
    budgets = [
        budget(node, power_w, known.accuracy, calibration, known.relative_uncertainty)
        for node, power_w in mean_w.items()
        if power_w > 0
    ]
    totals = [entry.total for entry in budgets if entry.total is not None]
    return instrument.model_copy(
        update={
            "relative_uncertainty": max(totals) if totals and len(totals) == len(budgets) else None,
            "calibration_id": instrument.calibration_id if calibration is None else calibration.id,
            "calibrated_utc_ns": None if calibration is None else calibration.created_utc_ns,
        }
    )
