"""What can be wrong with the emulated meter, on demand and with a time.

A fault is written `KIND[:key=value,...][@START[+DURATION]]`, seconds since the emulator began: `stuck:ch=2@10+5`,
`lose:p=0.01`, `unplug@30+4`. Channels count from 1. Without a time it holds from the beginning for ever.
"""

import math
from dataclasses import dataclass, field
from typing import Final

from shared.kernel.errors import ConfigurationError
from shared.kernel.numbers import decimal

KINDS: Final[dict[str, dict[str, float]]] = {
    "noise": {"w": 0.5},
    "quantise": {"w": 1.0},
    "stuck": {"ch": 1},
    "flip": {"ch": 1},
    "clip": {"w": 10.0},
    "startup": {"w": 2.0},
    "swap": {"a": 1, "b": 2},
    "gain": {"ch": 1, "k": 1.1},
    "offset": {"ch": 1, "w": 0.5},
    "lose": {"p": 0.1},
    "truncate": {"p": 0.1},
    "badcrc": {"p": 0.1},
    "repeat": {"p": 0.1},
    "garbage": {"p": 0.1},
    "silence": {},
    "reset": {},
    "clockstep": {"ms": 5000},
    "unplug": {},
}
"""Kind -> its parameters with their defaults. The last three are moments, the others states."""

MOMENTS: Final = frozenset({"reset", "clockstep"})


@dataclass(slots=True)
class Fault:
    """One fault; `done` marks a moment that has happened."""

    kind: str
    parameters: dict[str, float]
    start_s: float = 0.0
    end_s: float = math.inf
    done: bool = False

    def holds(self, at_s: float) -> bool:
        """Tell whether the fault is there."""
        return self.start_s <= at_s < self.end_s

    @property
    def channel(self) -> int:
        """The channel it is on, counted from 0."""
        return int(self.parameters["ch"]) - 1


@dataclass(slots=True)
class FaultPlan:
    """All faults of an emulator; more can be added while it runs."""

    faults: list[Fault] = field(default_factory=list)

    def active(self, kind: str, at_s: float) -> list[Fault]:
        """Return the faults of one kind that hold now."""
        return [fault for fault in self.faults if fault.kind == kind and fault.holds(at_s)]

    def moment(self, kind: str, at_s: float) -> Fault | None:
        """Return a moment that is due, once."""
        for fault in self.active(kind, at_s):
            if not fault.done:
                fault.done = True
                return fault
        return None

    def probability(self, kind: str, at_s: float) -> float:
        """Return the chance that a line suffers a fault of this kind."""
        return max((fault.parameters["p"] for fault in self.active(kind, at_s)), default=0.0)


def parse_fault(text: str, channels: int, *, now_s: float = 0.0) -> Fault:
    """Read one fault; times count from `now_s`.

    Raises:
        ConfigurationError: unknown kind or parameter, or a channel that does not exist.
    """
    head, _, when = text.partition("@")
    kind, _, rest = head.partition(":")
    if kind not in KINDS:
        raise ConfigurationError(f"unknown fault {kind!r}", where=text, hint=f"known: {', '.join(KINDS)}")
    parameters = dict(KINDS[kind])
    try:
        for pair in filter(None, rest.split(",")):
            key, value = pair.split("=")
            if key not in parameters:
                raise ConfigurationError(
                    f"{kind} has no parameter {key!r}", where=text, hint=f"it has: {', '.join(parameters) or 'none'}"
                )
            parameters[key] = decimal(value, 1e9)
        start, _, length = when.partition("+")
        start_s = now_s + decimal(start or "0", 1e9)
        end_s = start_s + decimal(length, 1e9) if length else math.inf
    except ValueError as error:
        raise ConfigurationError(
            "not a fault", where=text, hint="write KIND:key=value@START+DURATION, as in stuck:ch=2@10+5"
        ) from error
    for key in ("ch", "a", "b"):
        if key in parameters and not 1 <= parameters[key] <= channels:
            raise ConfigurationError(f"channel {parameters[key]:g} does not exist", where=text)
    return Fault(kind, parameters, start_s, end_s)
