"""Entity tags for whoever polls: the same answer is not sent twice (RFC 9110, 13.1.2).

A tag is made from the journal's last sequence number and what is being done now, so an unchanged answer costs one look
into an index. Every change of state is one transaction with its entry, so the number cannot lag behind the state.
"""

import hashlib
from typing import Annotated, Any

from fastapi import Header
from fastapi.responses import Response

from orchestrator.campaign.service import CampaignService
from shared.kernel.build import software_build
from shared.kernel.records import CampaignId

IfNoneMatch = Annotated[str | None, Header(description="the `ETag` of an earlier answer", max_length=1000)]

TAGGED: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"ETag": {"description": "names this answer", "schema": {"type": "string"}}}},
    304: {"description": "Nothing changed since the answer that `If-None-Match` names"},
}
"""What an endpoint with a tag answers besides its content."""


async def campaign_tag(service: CampaignService, campaign_id: CampaignId) -> str:
    """Return the tag of a campaign's status as it is now."""
    return _tag(await service.journal.last_seq(campaign_id), service.doing(campaign_id), _emulated(service))


async def campaigns_tag(service: CampaignService) -> str:
    """Return the tag of the list of campaigns as it is now."""
    return _tag(await service.journal.last_seq(), _emulated(service))


def not_modified(tag: str, if_none_match: str | None) -> Response | None:
    """Return the empty answer 304 if the asker has the present state already, else None."""
    known = {one.strip().removeprefix("W/") for one in (if_none_match or "").split(",")}
    return Response(status_code=304, headers={"ETag": tag}) if known & {tag, "*"} else None


def _emulated(service: CampaignService) -> bool:
    power = service.broadcaster.last_power
    return power is not None and power.emulated


def _tag(*parts: object) -> str:
    return '"' + hashlib.sha256(repr((str(software_build()), *parts)).encode()).hexdigest()[:32] + '"'
