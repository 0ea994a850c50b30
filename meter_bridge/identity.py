"""Says what measures: the meter's own word, the user's knowledge, the calibration in force.

Whether it is emulated is only ever the meter's word. Not here: the calibration itself (`calibration`).
"""

from meter_bridge.budget import budget
from meter_bridge.calibration import CalibrationRecord
from meter_bridge.frames import Hello
from meter_bridge.settings import BridgeSettings, InstrumentSettings, SerialSettings
from shared.records import Instrument, NodeName


def instrument_of(hello: Hello | None, settings: BridgeSettings) -> Instrument:
    """Return the instrument; without a hello its kind is unknown, unless the settings vouch for a meter without one."""
    known = settings.instrument
    if hello is None:
        return Instrument(
            name=known.name, kind="ac_meter" if vouched(settings) else "unknown", emulated=False,
            measurement_point=known.measurement_point,
        )  # fmt: skip
    return Instrument(
        name=hello.device, kind=hello.kind, emulated=hello.emulated, firmware=hello.firmware,
        calibration_id=hello.calibration, sample_rate_hz=hello.rate_hz,
        measurement_point=hello.measurement_point or known.measurement_point,
    )  # fmt: skip


def vouched(settings: BridgeSettings) -> bool:
    """Tell whether the settings vouch for a meter that never says hello."""
    return isinstance(settings.source, SerialSettings) and settings.source.accept_without_hello


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
