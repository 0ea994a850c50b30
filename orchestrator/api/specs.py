"""Endpoints of campaign specs: the named ones, checking one, planning one. Nothing here starts anything."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query

from orchestrator.campaign.service import CampaignService
from orchestrator.campaign.spec_file import load_spec
from orchestrator.campaign.spec_library import EXAMPLES, SpecLibrary, SpecName
from orchestrator.domain.campaign.dry_run import SpecCheck, SpecPlan, check, spec_plan
from orchestrator.domain.campaign.spec import CampaignSpec
from orchestrator.domain.campaign.steps import step_of_agent
from orchestrator.results.json_schemas import schema_of
from orchestrator.results.rates import measured_plan
from orchestrator.results.read_model import load_results
from orchestrator.settings import SURGEON
from shared.kernel.errors import NotFoundError
from shared.kernel.records import CampaignId, Record


class NamedSpecs(Record):
    """The specs known by name: the lab's own, which the Telegram bot starts too, and the shipped examples."""

    own: tuple[str, ...]
    examples: tuple[str, ...]


def spec_router(service: CampaignService, library: SpecLibrary) -> APIRouter:
    """Return the endpoints of specs."""
    router = APIRouter(prefix="/v1", tags=["specs"])
    examples = SpecLibrary(EXAMPLES)

    @router.get("/specs")
    async def list_specs() -> NamedSpecs:
        """List the named specs."""
        return NamedSpecs(own=tuple(library.names()), examples=tuple(examples.names()))

    @router.get("/specs/schema")
    async def get_schema() -> dict[str, Any]:
        """Return the JSON Schema of a spec, so that editors complete and check it."""
        return schema_of("spec")

    @router.get("/specs/{name}")
    async def get_spec(name: SpecName) -> CampaignSpec:
        """Return a named spec, to be edited and posted; the lab's own come before examples of the same name."""
        return load_spec((library if name in library.names() else examples).path(name))

    @router.post("/specs/validate")
    async def validate(spec: CampaignSpec) -> SpecCheck:
        """Hold a spec against this lab, as starting it would, and say in short what it runs."""
        admitted = await service.admitted(spec)
        return check(admitted, await service.fits(admitted))

    @router.post("/specs/plan")
    async def plan(
        spec: CampaignSpec,
        like: Annotated[CampaignId | None, Query(description="measured campaign to take rates from")] = None,
    ) -> SpecPlan:
        """Say what a spec runs in which order and what it can show; with `like` also durations, energy and disk."""
        spec = await service.admitted(spec)
        memory = await service.fits(spec)
        if like is None:
            return spec_plan(spec, memory=memory)
        await service.journal.campaign(like)
        prepared = await service.journal.last_result(like, "", step_of_agent("prepare", SURGEON))
        base_bytes = int(prepared["base_size_bytes"]) if prepared else 0
        planned = await asyncio.to_thread(_plan_like, spec, service.lab.settings.results_dir / like, base_bytes)
        return planned.model_copy(update={"memory": memory})

    return router


def _plan_like(spec: CampaignSpec, folder: Path, base_bytes: int) -> SpecPlan:
    if not (folder / "campaign.json").exists():
        raise NotFoundError("the campaign has no results yet", where=folder.name)
    return measured_plan(spec, load_results(folder), base_bytes)
