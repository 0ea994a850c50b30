"""Files on a node: bringing them here, holding what a campaign needs, removing what nobody needs."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from shared.kernel.records import Record, Sha256, SurgeryPlan

TransferMethod = Literal["here", "plan", "http", "rsync"]
"""How an artifact reaches a node: it is there, made by plan from the base, ranged HTTP, rsync over ssh."""


class FetchParams(Record):
    """Bring an artifact here in the cheapest method that is possible (or allowed by `methods`)."""

    sha256: Sha256
    size_bytes: int = Field(ge=0)
    base_sha256: Sha256 | None = Field(default=None, description="what `plan` applies to; rsync's basis as well")
    plan: SurgeryPlan | None = None
    methods: tuple[TransferMethod, ...] = ("here", "plan", "http", "rsync")


class TransferCost(Record):
    """What one method is expected to cost; null where it is not possible, with the reason."""

    former_names: ClassVar = {"way": "method"}

    method: TransferMethod
    expected_bytes: int | None = None
    reason: str = ""


class TransferFailure(Record):
    """A cheaper method that was tried in vain; `bytes_received` is null where its program did not say."""

    former_names: ClassVar = {"way": "method"}

    method: TransferMethod
    reason: str
    bytes_received: int | None = None


class FetchResult(Record):
    """`bytes_received` and `bytes_sent` crossed the net to and from this node; the plan counts with its own size."""

    former_names: ClassVar = {"way": "method"}

    sha256: Sha256
    size_bytes: int
    method: TransferMethod
    bytes_received: int
    bytes_sent: int = 0
    seconds: float
    considered: tuple[TransferCost, ...]
    failed: tuple[TransferFailure, ...] = ()

    @property
    def net_bytes(self) -> int:
        """Return all bytes that crossed the net for this artifact, those of methods tried in vain too."""
        return self.bytes_received + self.bytes_sent + sum(failure.bytes_received or 0 for failure in self.failed)


PinOwner = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class PinParams(Record):
    """What `owner` (a campaign) needs on this node from now on; nothing releases what it pinned."""

    owner: PinOwner
    sha256s: tuple[Sha256, ...] = ()


class PinResult(Record):
    """What of it is not here yet, and everybody who holds something on this node now."""

    missing: tuple[Sha256, ...] = ()
    owners: tuple[PinOwner, ...] = ()


class GarbageCollectionParams(Record):
    """Remove artifacts that nobody holds, least recently used first, until at most `keep_bytes` are used."""

    keep_bytes: int = Field(default=0, ge=0)


class GarbageCollectionResult(Record):
    """What was removed, and what is still used."""

    removed: tuple[Sha256, ...]
    freed_bytes: int
    used_bytes: int
