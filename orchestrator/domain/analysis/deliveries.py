"""How models reached the nodes, added up: bytes over the net by node and way."""

from collections.abc import Iterable

from pydantic import Field

from shared.kernel.records import NodeName, Record
from shared.wire.node_jobs.artifacts import ObtainResult, Way


class DeliveryTotal(Record):
    """All deliveries to one node that ended in one way; `failed` counts cheaper ways that were tried in vain."""

    node: NodeName
    way: Way
    times: int
    net_bytes: int = Field(description="received and sent, ways tried in vain included")
    file_bytes: int = Field(description="sizes of the files that were brought")
    failed: int = 0


def delivery_totals(deliveries: Iterable[tuple[NodeName, ObtainResult]]) -> tuple[DeliveryTotal, ...]:
    """Return the totals, ordered by node and way."""
    groups: dict[tuple[NodeName, Way], list[ObtainResult]] = {}
    for node, delivery in deliveries:
        groups.setdefault((node, delivery.way), []).append(delivery)
    return tuple(
        DeliveryTotal(
            node=node, way=way, times=len(group), net_bytes=sum(one.net_bytes for one in group),
            file_bytes=sum(one.size_bytes for one in group), failed=sum(len(one.failed) for one in group),
        )
        for (node, way), group in sorted(groups.items())
    )  # fmt: skip
