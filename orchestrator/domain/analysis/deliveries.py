"""How models reached the nodes, added up: bytes over the net by node and method."""

from collections.abc import Iterable

from pydantic import Field

from shared.kernel.records import NodeName, Record
from shared.wire.node_jobs.artifacts import FetchResult, TransferMethod


class DeliveryTotal(Record):
    """All deliveries to one node that ended in one method; `failed` counts cheaper methods that were tried in vain."""

    node: NodeName
    method: TransferMethod
    times: int
    net_bytes: int = Field(description="received and sent, methods tried in vain included")
    file_bytes: int = Field(description="sizes of the files that were brought")
    failed: int = 0


def delivery_totals(deliveries: Iterable[tuple[NodeName, FetchResult]]) -> tuple[DeliveryTotal, ...]:
    """Return the totals, ordered by node and method."""
    groups: dict[tuple[NodeName, TransferMethod], list[FetchResult]] = {}
    for node, delivery in deliveries:
        groups.setdefault((node, delivery.method), []).append(delivery)
    return tuple(
        DeliveryTotal(
            node=node, method=method, times=len(group), net_bytes=sum(one.net_bytes for one in group),
            file_bytes=sum(one.size_bytes for one in group), failed=sum(len(one.failed) for one in group),
        )
        for (node, method), group in sorted(groups.items())
    )  # fmt: skip
