"""A node's clock against the orchestrator's, before and after the windows of an attempt.

The nodes' clocks are disciplined by NTP, or not at all: what lies between the two comparisons is taken for a straight
line, and how far the clock may have been from that line is part of the lag's uncertainty. Not here: the meter's clock,
which the bridge fits.
"""

from math import hypot, sqrt

from pydantic import Field

from shared.kernel.records import Record


class ClockOffset(Record):
    """One comparison, by the mid-point of a round trip."""

    utc_ns: int = Field(description="when, on the orchestrator's clock")
    offset_ns: int = Field(description="the node's clock minus the orchestrator's")
    uncertainty_s: float = Field(ge=0, description="half of the round trip: the offset is off by no more")


class NodeClock(Record):
    """A node's clock over an attempt."""

    before: ClockOffset
    after: ClockOffset

    @property
    def drift_s(self) -> float:
        """How far the clock moved against the orchestrator's between the comparisons, in seconds."""
        return (self.after.offset_ns - self.before.offset_ns) / 1e9

    @property
    def established_drift_s(self) -> float:
        """The part of the drift that the round trips cannot explain, without sign."""
        return max(abs(self.drift_s) - self.before.uncertainty_s - self.after.uncertainty_s, 0.0)

    @property
    def uncertainty_s(self) -> float:
        """Standard uncertainty of a time told in the orchestrator's clock (GUM, uniform distributions), in seconds.

        The round trip's half is a bound. A drift may have been a step at any moment: a time is then off by half of it
        on average, on either side of the line.
        """
        trip_s = max(self.before.uncertainty_s, self.after.uncertainty_s)
        return hypot(trip_s, self.established_drift_s / 2) / sqrt(3)

    def ours(self, node_utc_ns: int) -> int:
        """Return a time of the node's clock on the orchestrator's; outside of the comparisons the nearer one counts."""
        begun = self.before.utc_ns + self.before.offset_ns
        ended = self.after.utc_ns + self.after.offset_ns
        share = min(max((node_utc_ns - begun) / (ended - begun), 0.0), 1.0) if ended > begun else 0.0
        return node_utc_ns - self.before.offset_ns - round((self.after.offset_ns - self.before.offset_ns) * share)
