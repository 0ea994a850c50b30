"""Files on a node: bringing them here, holding what a campaign needs, removing what nobody needs."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shared.kernel.records import Record, Sha256, SurgeryPlan

Way = Literal["here", "plan", "http", "rsync"]
"""How an artifact reaches a node: it is there, made by plan from the base, ranged HTTP, rsync over ssh."""


class ObtainParams(Record):
    """Bring an artifact here in the cheapest way that is possible (or allowed by `ways`)."""

    sha256: Sha256
    size_bytes: int = Field(ge=0)
    base_sha256: Sha256 | None = Field(default=None, description="what `plan` applies to; rsync's basis as well")
    plan: SurgeryPlan | None = None
    ways: tuple[Way, ...] = ("here", "plan", "http", "rsync")


class WayCost(Record):
    """What one way is expected to cost; null where it is not possible, with the reason."""

    way: Way
    expected_bytes: int | None = None
    reason: str = ""


class WayFailure(Record):
    """A cheaper way that was tried in vain; `bytes_received` is null where its program did not say."""

    way: Way
    reason: str
    bytes_received: int | None = None


class ObtainResult(Record):
    """`bytes_received` and `bytes_sent` crossed the net to and from this node; the plan counts with its own size."""

    sha256: Sha256
    size_bytes: int
    way: Way
    bytes_received: int
    bytes_sent: int = 0
    seconds: float
    considered: tuple[WayCost, ...]
    failed: tuple[WayFailure, ...] = ()

    @property
    def net_bytes(self) -> int:
        """Return all bytes that crossed the net for this artifact, those of ways tried in vain too."""
        return self.bytes_received + self.bytes_sent + sum(failure.bytes_received or 0 for failure in self.failed)


Holder = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class HoldParams(Record):
    """What `holder` (a campaign) needs on this node from now on; nothing releases what it held."""

    holder: Holder
    sha256s: tuple[Sha256, ...] = ()


class HoldResult(Record):
    """What of it is not here yet, and everybody who holds something on this node now."""

    missing: tuple[Sha256, ...] = ()
    holders: tuple[Holder, ...] = ()


class CollectParams(Record):
    """Remove artifacts that nobody holds, least recently used first, until at most `keep_bytes` are used."""

    keep_bytes: int = Field(default=0, ge=0)


class CollectResult(Record):
    """What was removed, and what is still used."""

    removed: tuple[Sha256, ...]
    freed_bytes: int
    used_bytes: int
