"""What a meter can say at all: beyond these limits a number is damage or malice, whatever source it came from.

Wide on purpose: they keep sums, packing and clocks sound. What looks wrong about possible values, `detectors` say.
"""

import math
from typing import Final

from meter_bridge.protocol.frames import DEVICE_MS_MODULUS, SEQUENCE_MODULUS, Frame, Hello

SLOWEST_HZ: Final = 0.01
"""A slower meter could be dead for minutes without anybody noticing."""
FASTEST_HZ: Final = 1000.0
LARGEST_POWER_W: Final = 1e5
"""No inlet of a node carries 100 kW."""
LIMITS: Final[dict[str, tuple[float, float]]] = {
    "W": (-LARGEST_POWER_W, LARGEST_POWER_W), "V": (-2000.0, 2000.0), "A": (-2000.0, 2000.0), "PF": (-1.1, 1.1),
    "VAR": (-LARGEST_POWER_W, LARGEST_POWER_W), "Wh": (-1e9, 1e9), "Hz": (0.0, 1000.0),
    "rate": (SLOWEST_HZ, FASTEST_HZ), "s": (0, SEQUENCE_MODULUS - 1), "t": (0, DEVICE_MS_MODULUS - 1),
}  # fmt: skip
"""Name on the wire -> lowest and highest value."""
_COLUMNS: Final = {
    "W": "power_w", "V": "voltage_v", "A": "current_a", "PF": "power_factor", "VAR": "reactive_var", "Wh": "energy_wh"
}  # fmt: skip
_SCALARS: Final = {"Hz": "frequency_hz", "s": "seq", "t": "device_ms"}


def beyond(field: str, value: float) -> str | None:
    """Return in words that a value is beyond what `field` can be; None when it is not. NaN is a missing value."""
    low, high = LIMITS[field]
    if low <= value <= high or value != value:
        return None
    shown = f"{value:g}" if abs(value) < 1e300 else str(value)[:30]  # whole numbers may be larger than any float
    return f"{field} is {shown}, not in {low:.9g}..{high:.9g}"


def fault_of(item: Frame | Hello) -> str | None:
    """Return the first value of a frame or hello that no meter can mean: field, value and limits; None without one."""
    if isinstance(item, Hello):
        return f"rate is {item.rate_hz}" if math.isnan(item.rate_hz) else beyond("rate", item.rate_hz)
    for field, name in _COLUMNS.items():
        low, high = LIMITS[field]
        for value in getattr(item, name) or ():
            if not low <= value <= high and (reason := beyond(field, value)):
                return reason
    for field, name in _SCALARS.items():
        value = getattr(item, name)
        if value is not None and (reason := beyond(field, value)):
            return reason
    return None
