"""The node agent's HTTP service: jobs, facts, artifacts, health."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from node_agent.jobs import Node
from node_agent.machine.activity import note
from node_agent.settings import NodeSettings
from shared.kernel.build import software_build
from shared.service.health import HealthRegistry
from shared.service.http import make_app
from shared.wire.artifact_checks import artifact_report_router
from shared.wire.artifacts import artifact_router
from shared.wire.health_api import health_router
from shared.wire.job_server import JOB_BODIES, JobServer, job_router
from shared.wire.node_jobs.activity import AgentActivity
from shared.wire.node_jobs.engines import EngineInfo, NodeConnections
from shared.wire.node_jobs.host import NodeFacts
from shared.wire.node_jobs.load import LoadReading


class NoteRequests:
    """ASGI middleware that remembers what was asked, for the proof of silence."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the request and pass it on."""
        if scope["type"] in ("http", "websocket"):
            note(f"served {scope.get('method', 'WebSocket')} {scope['path']}")
        await self._app(scope, receive, send)


def build_app(settings: NodeSettings, token: str | None) -> FastAPI:
    """Return the service; its children are found on start and ended on stop."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    node = Node(settings)
    health = HealthRegistry()
    health.watch(node.checks.problems)
    health.watch(node.stopped_children)
    server = JobServer(settings.state_dir / "jobs.sqlite", node.kinds(), health, settings.job_history)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await node.find_children()
        try:
            async with server.running():
                yield
        finally:
            await node.stop_children()

    app = make_app("EPI Factory node agent", str(software_build()), token, larger_bodies=JOB_BODIES)
    app.router.lifespan_context = lifespan
    app.add_middleware(NoteRequests)

    @app.get("/v1/facts")
    async def facts() -> NodeFacts:
        """Say what this machine is and how it is."""
        return await node.facts()

    @app.get("/v1/activity")
    async def activity() -> AgentActivity:
        """Say what this agent did and wrote since its start."""
        return node.activity()

    @app.get("/v1/load")
    async def load(since: int | None = None) -> LoadReading:
        """Take a look at who uses the processors; say what happened since an earlier look, named by its `utc_ns`."""
        return node.load(since)

    @app.get("/v1/connections")
    async def connections() -> NodeConnections:
        """Say who is connected to this node's worker, and where its engine is connected from."""
        return node.connections()

    @app.get("/v1/engines")
    async def engines() -> list[EngineInfo]:
        """Say what each engine of this node can do."""
        return node.engine_infos()

    app.include_router(health_router("node_agent", settings.name, health))
    app.include_router(job_router(server))
    app.include_router(artifact_router(node.store))
    app.include_router(artifact_report_router(node.checks))
    return app
