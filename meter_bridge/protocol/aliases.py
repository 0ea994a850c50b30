"""The names under which meters send the same quantity, and the plain lines of emonhub-style loggers.

Not here: the grammar of protocol v1 itself (`parser`).
"""

import re
from typing import Final

QUANTITIES: Final[dict[str, str]] = {
    **dict.fromkeys(("w", "p", "power", "watts", "watt", "realpower", "p_w", "power_w", "apower"), "W"),
    **dict.fromkeys(("v", "vrms", "urms", "u", "voltage", "voltage_v"), "V"),
    **dict.fromkeys(("a", "i", "irms", "amps", "current", "current_a"), "A"),
    **dict.fromkeys(("pf", "powerfactor", "power_factor", "cosphi"), "PF"),
    **dict.fromkeys(("var", "q", "reactive", "reactivepower", "reactive_var"), "VAR"),
    **dict.fromkeys(("wh", "e", "energy", "energy_wh"), "Wh"),
}
"""Lower-case name on the wire -> our name of a per-channel quantity."""

SCALARS: Final[dict[str, str]] = {
    **dict.fromkeys(("s", "seq", "sequence", "msg", "frame"), "s"),
    **dict.fromkeys(("t", "ms", "time_ms", "uptime_ms", "millis"), "t"),
    **dict.fromkeys(("hz", "freq", "frequency", "f"), "Hz"),
}
"""Lower-case name on the wire -> our name of a quantity sent once a frame."""

NUMBERED: Final = re.compile(r"^([a-z_]+?)_?(\d{1,2})$")
"""`P1`, `power_2`, `ct3`: a quantity of one channel, counted from 1."""

_CHANNEL_WORDS: Final = frozenset({"ct", "ch", "channel"})


def quantity_of(name: str) -> str | None:
    """Return our name of a per-channel quantity, or None."""
    return QUANTITIES.get(name.lower())


def scalar_of(name: str) -> str | None:
    """Return our name of a per-frame quantity, or None."""
    return SCALARS.get(name.lower())


def numbered_of(name: str) -> tuple[str, int] | None:
    """Split `P2` into (`W`, 1): our quantity and the channel counted from 0 (`P0` gives -1); None for other names."""
    match = NUMBERED.match(name.lower())
    if match is None:
        return None
    quantity = "W" if match[1] in _CHANNEL_WORDS else QUANTITIES.get(match[1])
    return None if quantity is None else (quantity, int(match[2]) - 1)


def split_pairs(text: str) -> dict[str, str] | None:
    """Read `MSG:7,Vrms:231.2,P1:5.1` (emonTx style, `:` or `=`) into pairs; None when the line is something else."""
    pairs: dict[str, str] = {}
    for part in text.rstrip(", ").split(","):
        key, separator, value = part.strip().replace("=", ":", 1).partition(":")
        if not separator or not key.isidentifier() or key in pairs:
            return None
        pairs[key] = value
    return pairs


def split_plain(text: str) -> list[str] | None:
    """Read `10 5.1 6.2 ...` (emonhub: node id, then values) into the values; None when the line is something else."""
    words = text.split()
    if len(words) < 2 or not words[0].isdigit() or len(words[0]) > 3:
        return None
    return words[1:]
