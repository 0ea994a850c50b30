"""The orchestrator's application: journal, campaign service, live broadcaster, API and dashboard put together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from fastapi import FastAPI

from orchestrator.api.analysis import analysis_router
from orchestrator.api.artifacts import artifact_router
from orchestrator.api.campaigns import campaign_router
from orchestrator.api.lab import LabView, lab_router
from orchestrator.api.live import live_router
from orchestrator.api.specs import spec_router
from orchestrator.campaign.lab import Lab
from orchestrator.campaign.live import LiveBroadcaster, relay_power
from orchestrator.campaign.scrubber import Scrubber
from orchestrator.campaign.service import CampaignService
from orchestrator.campaign.spec_library import SpecLibrary
from orchestrator.notify.dispatcher import start_notifying
from orchestrator.reports.publish import publish
from orchestrator.settings import OrchestratorSettings
from orchestrator.store.journal import open_journal
from orchestrator.web.routes import OPEN_PATHS, web_router
from shared.files.kept_sessions import SESSIONS_NAME, kept_sessions
from shared.kernel.build import software_build
from shared.service.background import BackgroundTasks
from shared.service.health import HealthRegistry
from shared.service.http import make_app
from shared.wire.health_api import health_of, health_router
from shared.wire.protocol import Health
from shared.wire.session_api import session_router


def build_app(settings: OrchestratorSettings, token: str | None) -> FastAPI:
    """Return the orchestrator's service; the journal is opened when it starts.

    Raises (at start):
        ConflictError: another process holds the journal.
    """
    sessions = kept_sessions(settings.state_dir / SESSIONS_NAME, token)
    app = make_app("EPI Factory orchestrator", str(software_build()), token, sessions=sessions, open_paths=OPEN_PATHS)
    health = HealthRegistry()

    def own_health() -> Health:
        return health_of("orchestrator", settings.name, health)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            journal = await stack.enter_async_context(open_journal(settings.state_dir / "journal.sqlite"))
            journal.report_to(health)
            lab = Lab(settings)
            stack.push_async_callback(lab.close)
            broadcaster = LiveBroadcaster()
            service = CampaignService(journal, lab, broadcaster, on_finished=publish, health=health)
            library = SpecLibrary(settings.specs_dir)
            app.include_router(campaign_router(service))
            app.include_router(spec_router(service, library))
            app.include_router(analysis_router(service))
            scrubber = Scrubber(lab, lambda: service.is_busy, settings.scrub_days)
            app.include_router(lab_router(LabView(lab, own_health), broadcaster, service))
            app.include_router(artifact_router(scrubber))
            app.include_router(live_router(broadcaster, journal))
            app.include_router(health_router("orchestrator", settings.name, health, tags=["lab"]))
            app.include_router(session_router(sessions))
            app.include_router(web_router())
            background = await stack.enter_async_context(BackgroundTasks(health))
            start_notifying(settings.notify, service, library, background, health)
            background.start("the campaign runner", service.run_forever)
            background.start("the relay of power", partial(relay_power, broadcaster, lab), failing=False)
            background.start("the scrub of artifacts", scrubber.run_forever, failing=False)
            yield

    app.router.lifespan_context = lifespan
    return app
