"""How artifacts reach a node. Keeping and removing them is the same on every agent (`shared.wire.artifacts`)."""

from typing import ClassVar, Literal

from pydantic import Field

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
