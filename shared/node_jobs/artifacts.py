"""Files on a node: bringing them here, holding what a campaign needs, removing what nobody needs."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shared.records import Record, Sha256, SurgeryPlan


class FetchParams(Record):
    """Bring one artifact here."""

    sha256: Sha256


class FetchResult(Record):
    """`bytes_received` is 0 when the artifact was here already."""

    sha256: Sha256
    size_bytes: int
    bytes_received: int


class DeployParams(Record):
    """Apply `plan` to `base_sha256` locally."""

    base_sha256: Sha256
    plan: SurgeryPlan
    expected_sha256: Sha256


class DeployResult(Record):
    """`sha256` equals the expected hash, or the job fails."""

    sha256: Sha256
    size_bytes: int
    bytes_received: int = 0
    seconds: float


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


class ObtainResult(Record):
    """`bytes_received` and `bytes_sent` crossed the net to and from this node; the plan counts with its own size."""

    sha256: Sha256
    size_bytes: int
    way: Way
    bytes_received: int
    bytes_sent: int = 0
    seconds: float
    considered: tuple[WayCost, ...]


Holder = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class HoldParams(Record):
    """What `holder` (a campaign) needs on this node from now on; nothing releases what it held."""

    holder: Holder
    sha256s: tuple[Sha256, ...] = ()


class HoldResult(Record):
    """What of it is not here yet."""

    missing: tuple[Sha256, ...] = ()


class CollectParams(Record):
    """Remove artifacts that nobody holds, least recently used first, until at most `keep_bytes` are used."""

    keep_bytes: int = Field(default=0, ge=0)


class CollectResult(Record):
    """What was removed, and what is still used."""

    removed: tuple[Sha256, ...]
    freed_bytes: int
    used_bytes: int
