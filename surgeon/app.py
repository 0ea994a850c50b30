"""The surgeon as a service: jobs, artifacts, health."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from shared.kernel.build import software_build
from shared.service.bodies import LARGE
from shared.service.health import HealthRegistry, Problem
from shared.service.http import make_app
from shared.wire.artifact_checks import ArtifactChecks, artifact_report_router
from shared.wire.artifacts import ArtifactJobs, artifact_router
from shared.wire.footprint import FootprintReply, FootprintRequest
from shared.wire.health_api import health_router
from shared.wire.job_server import JOB_BODIES, JobServer, job_router
from shared.wire.surgeon_catalogue import Catalogue, KindInfo, MethodInfo
from shared.wire.surgeries import CheckParams, ModelAfter
from surgeon.catalogue import CatalogueReader
from surgeon.checks import check_steps
from surgeon.jobs import Tools, job_kinds
from surgeon.jobs.footprints import FootprintReader
from surgeon.settings import SurgeonSettings
from surgeon.work.named import kind_infos, method_infos

LARGER_BODIES = {**JOB_BODIES, "/v1/checks": LARGE}
"""Plans with merge matrices are checked too."""


def build_app(settings: SurgeonSettings, token: str | None) -> FastAPI:
    """Return the service."""
    tools = Tools.of(settings)
    store = tools.store
    health = HealthRegistry()
    health.watch(lambda: _missing_files(settings))
    checks = ArtifactChecks(store, concurrent=True)
    health.watch(checks.problems)
    kinds = [*job_kinds(tools), *ArtifactJobs(store, concurrent=True).kinds(), *checks.kinds()]
    server = JobServer(settings.state_dir / "jobs.sqlite", kinds, health, settings.job_history)
    app = make_app("EPI Factory surgeon", str(software_build()), token, larger_bodies=LARGER_BODIES)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        store.clean_scratch()
        async with server.running():
            yield

    app.router.lifespan_context = lifespan

    @app.get("/v1/methods")
    async def methods() -> list[MethodInfo]:
        """List rankings and searches: what each needs, its parameters and its source."""
        return method_infos()

    @app.get("/v1/kinds")
    async def surgery_kinds() -> list[KindInfo]:
        """List the kinds of surgery: what each does, its parameters and its source."""
        return kind_infos()

    catalogue = CatalogueReader(settings)

    @app.get("/v1/catalogue")
    async def read_catalogue() -> Catalogue:
        """Return models, corpora, question files, rankings and searches: everything that a campaign may name."""
        return await catalogue.read()

    @app.post("/v1/checks")
    async def check(params: CheckParams) -> ModelAfter:
        """Say what a configured model is after these steps, or why they cannot be done to it; nothing is done."""
        return await asyncio.to_thread(check_steps, params, settings)

    footprints = FootprintReader(tools)

    @app.post("/v1/footprints")
    async def read_footprints(request: FootprintRequest) -> FootprintReply:
        """Return what variants of models take in memory on each node, calculated from headers: nothing is made."""
        return FootprintReply(answers=await footprints.answers(request.items))

    app.include_router(health_router("surgeon", settings.name, health))
    app.include_router(job_router(server))
    app.include_router(artifact_router(store))
    app.include_router(artifact_report_router(checks))
    return app


def _missing_files(settings: SurgeonSettings) -> list[Problem]:
    paths = [*settings.models.values(), *(path for paths in settings.corpora.values() for path in paths)]
    paths += [path for path in (settings.sanity_prompts, settings.heldout_text) if path is not None]
    return [Problem(f"missing: {path}") for path in paths if not path.exists()]
