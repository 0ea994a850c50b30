"""Endpoints of campaigns, their runs and results."""

import asyncio
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi import Path as PathParam
from fastapi.responses import FileResponse, Response
from starlette.background import BackgroundTask

from orchestrator.api.etag import TAGGED, IfNoneMatch, campaign_tag, campaigns_tag, not_modified
from orchestrator.api.models import CampaignStatus, CampaignSummary, ConfigurationResult, RunDetail
from orchestrator.api.views import campaign_status, campaign_summaries, configuration_results, run_detail
from orchestrator.campaign.service import CampaignService
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.results.files import FileKind, run_files
from orchestrator.results.power_view import MOST_COLUMNS, PowerView, PowerViews
from orchestrator.store.records import Campaign, Entry
from shared.files.sqlite import INT64_MAX
from shared.kernel.errors import NotFoundError
from shared.kernel.records import CampaignId, ConfigurationId

Repetition = Annotated[int, PathParam(ge=1, le=999)]
Moment = Annotated[int | None, Query(ge=0, le=2**62, description="UTC nanoseconds; the trace's own edge if absent")]


def campaign_router(service: CampaignService) -> APIRouter:
    """Return the endpoints of campaigns."""
    router = APIRouter(prefix="/v1", tags=["campaigns"])
    power_views = PowerViews()

    @router.post("/campaigns", status_code=201)
    async def create(spec: CampaignSpec) -> CampaignStatus:
        """Create and start a campaign; the same spec twice is one campaign."""
        campaign = await service.create(spec)
        return await campaign_status(service, campaign)

    @router.get("/campaigns", response_model=list[CampaignSummary], responses=TAGGED)
    async def list_campaigns(
        response: Response,
        if_none_match: IfNoneMatch = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before_utc_ns: Annotated[int, Query(ge=0, le=INT64_MAX)] = INT64_MAX,
    ) -> list[CampaignSummary] | Response:
        """List campaigns, newest first; page on with the `created_utc_ns` of the last."""
        tag = await campaigns_tag(service)
        if (unchanged := not_modified(tag, if_none_match)) is not None:
            return unchanged
        response.headers["ETag"] = tag
        return await campaign_summaries(service, await service.journal.campaigns(limit, before_utc_ns))

    @router.get("/campaigns/{campaign_id}", response_model=CampaignStatus, responses=TAGGED)
    async def get_campaign(
        campaign_id: CampaignId, response: Response, if_none_match: IfNoneMatch = None
    ) -> CampaignStatus | Response:
        """Return a campaign with its runs; send the `ETag` back as `If-None-Match` when polling."""
        await service.journal.find(campaign_id)
        tag = await campaign_tag(service, campaign_id)
        if (unchanged := not_modified(tag, if_none_match)) is not None:
            return unchanged
        response.headers["ETag"] = tag
        # Read again after the tag was made: a tag may be older than its content, never newer.
        campaign = await service.journal.campaign(campaign_id)
        return await campaign_status(service, campaign)

    @router.post("/campaigns/{campaign_id}/pause")
    async def pause(campaign_id: CampaignId) -> CampaignStatus:
        """Ask for a pause after the present run."""
        return await campaign_status(service, await service.pause(campaign_id))

    @router.post("/campaigns/{campaign_id}/resume")
    async def resume(campaign_id: CampaignId) -> CampaignStatus:
        """Let a paused, failed or cancelled campaign go on."""
        return await campaign_status(service, await service.resume(campaign_id))

    @router.post("/campaigns/{campaign_id}/retry")
    async def retry(campaign_id: CampaignId) -> CampaignStatus:
        """Try the failed runs of a campaign again; finished runs are kept."""
        return await campaign_status(service, await service.retry(campaign_id))

    @router.post("/campaigns/{campaign_id}/cancel")
    async def cancel(campaign_id: CampaignId) -> CampaignStatus | CampaignSummary:
        """Ask a campaign to end after the present run; what is measured is kept. One that cannot be read: a summary."""
        campaign = await service.cancel(campaign_id)
        if isinstance(campaign, Campaign):
            return await campaign_status(service, campaign)
        return (await campaign_summaries(service, [campaign]))[0]

    @router.get("/campaigns/{campaign_id}/results")
    async def results(campaign_id: CampaignId) -> list[ConfigurationResult]:
        """Return each measured configuration's figures."""
        return await configuration_results(service, (await service.journal.find(campaign_id)).id)

    @router.get("/campaigns/{campaign_id}/runs/{configuration}/{repetition}")
    async def get_run(campaign_id: CampaignId, configuration: ConfigurationId, repetition: Repetition) -> RunDetail:
        """Return one run with its attempts, windows and result."""
        campaign = await service.journal.campaign(campaign_id)
        run = RunReference(configuration=configuration, repetition=repetition)
        return await run_detail(service, campaign, run)

    @router.get("/campaigns/{campaign_id}/runs/{configuration}/{repetition}/files/{kind}", response_class=FileResponse)
    async def run_file(
        campaign_id: CampaignId, configuration: ConfigurationId, repetition: Repetition, kind: FileKind
    ) -> FileResponse:
        """Download one result file of a run."""
        await service.journal.find(campaign_id)
        run = RunReference(configuration=configuration, repetition=repetition)
        path = _file(service.lab.settings.results_dir, campaign_id, run, kind)
        return FileResponse(path, filename=path.name)

    @router.get("/campaigns/{campaign_id}/runs/{configuration}/{repetition}/power")
    async def run_power(
        campaign_id: CampaignId,
        configuration: ConfigurationId,
        repetition: Repetition,
        start_utc_ns: Moment = None,
        end_utc_ns: Moment = None,
        columns: Annotated[int, Query(ge=1, le=MOST_COLUMNS)] = 800,
    ) -> PowerView:
        """Return the power of a finished run, or of a part of it, in few columns: what a chart shows of it."""
        await service.journal.campaign(campaign_id)
        path = _file(
            service.lab.settings.results_dir,
            campaign_id,
            RunReference(configuration=configuration, repetition=repetition),
            "power_trace",
        )
        return await asyncio.to_thread(power_views.view, path, start_utc_ns, end_utc_ns, columns)

    @router.get("/campaigns/{campaign_id}/export", response_class=FileResponse)
    async def export(campaign_id: CampaignId) -> FileResponse:
        """Download the whole result tree as one archive (.tar.gz)."""
        await service.journal.find(campaign_id)
        archive = await asyncio.to_thread(_archive, service.lab.settings.results_dir, campaign_id)
        return FileResponse(archive, filename=f"{campaign_id}.tar.gz", background=BackgroundTask(archive.unlink))

    @router.get("/entries")
    async def entries(
        since: Annotated[int, Query(ge=0, le=INT64_MAX)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
        campaign: CampaignId | None = None,
    ) -> list[Entry]:
        """Return journal entries after `since`, oldest first; page on with the last `seq`."""
        return await service.journal.entries(since, limit, campaign)

    return router


def _archive(results: Path, campaign_id: CampaignId) -> Path:
    """Pack a campaign's folder: regular files and folders; dot files (half-written ones) stay out."""
    if not (results / campaign_id).is_dir():
        raise NotFoundError("the campaign has no results yet", where=campaign_id)
    handle, name = tempfile.mkstemp(suffix=".tar.gz")
    try:
        with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
            tar.add(
                results / campaign_id, arcname=campaign_id,
                filter=lambda info: info if _is_result(info) else None,
            )  # fmt: skip
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def _is_result(info: tarfile.TarInfo) -> bool:
    return (info.isreg() or info.isdir()) and not Path(info.name).name.startswith(".")


def _file(results: Path, campaign_id: CampaignId, run: RunReference, kind: FileKind) -> Path:
    """Return the file of a finished run; every part of its name was checked against a closed pattern."""
    path = run_files(results / campaign_id, run)[kind]
    if not path.is_file():
        raise NotFoundError(
            "the run has no such file yet",
            where=f"{campaign_id}/{run}/{kind}",
        )
    return path
