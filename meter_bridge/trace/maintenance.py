"""Retention and compaction of the trace, run between two batches of the one writer.

Raw power is never changed: compaction drops the other quantities (V, A, PF, VAR, frequency), retention drops whole
samples. Events are kept as long as samples.
"""

from pydantic import Field

from meter_bridge.trace.store import TraceStore
from shared.kernel.errors import ConfigurationError
from shared.kernel.records import Record

_NS_PER_DAY = 86_400_000_000_000


class MaintenanceRequest(Record):
    """What to do; at least one of both."""

    keep_days: float | None = Field(
        default=None, ge=1e-5, le=1e5, description="delete samples and events older than this"
    )
    compact_days: float | None = Field(default=None, ge=1e-5, le=1e5, description="keep only power of older samples")


class MaintenanceResult(Record):
    """How many rows were touched, and the size of the database before and after."""

    deleted_samples: int = 0
    deleted_events: int = 0
    compacted_samples: int = 0
    bytes_before: int
    bytes_after: int


async def maintain(
    store: TraceStore, *, keep_days: float | None, compact_days: float | None, now_utc_ns: int
) -> MaintenanceResult:
    """Delete and slim, then give the space back to the file system.

    Raises:
        ConfigurationError: nothing was asked for.
    """
    if keep_days is None and compact_days is None:
        raise ConfigurationError("nothing to do", hint="give keep_days or compact_days")
    before = _size(store)
    deleted, events, compacted = 0, 0, 0
    if keep_days is not None:
        oldest = now_utc_ns - int(keep_days * _NS_PER_DAY)
        deleted, events = await store.exclusively(
            [("DELETE FROM sample WHERE utc_ns < ?", (oldest,)), ("DELETE FROM event WHERE utc_ns < ?", (oldest,))]
        )
    if compact_days is not None:
        oldest = now_utc_ns - int(compact_days * _NS_PER_DAY)
        (compacted,) = await store.exclusively(
            [
                (
                    "UPDATE sample SET extra = NULL, frequency_hz = NULL"
                    " WHERE utc_ns < ? AND (extra IS NOT NULL OR frequency_hz IS NOT NULL)",
                    (oldest,),
                )
            ]
        )
    await store.give_space_back()
    return MaintenanceResult(
        deleted_samples=deleted, deleted_events=events, compacted_samples=compacted, bytes_before=before,
        bytes_after=_size(store),
    )  # fmt: skip


def _size(store: TraceStore) -> int:
    return sum(
        path.stat().st_size
        for suffix in ("", "-wal")
        if (path := store.path.with_name(store.path.name + suffix)).exists()
    )
