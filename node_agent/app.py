"""The node agent's HTTP service: jobs, facts, artifacts, health."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI

from node_agent.host import read_facts
from node_agent.jobs import Node
from node_agent.settings import NodeSettings
from shared.artifacts import artifact_router
from shared.auth import bearer_guard
from shared.clock import utc_ns
from shared.http import make_app
from shared.jobs import JobServer, job_router
from shared.node_jobs import NodeFacts
from shared.protocol import Health

VERSION = version("epi-factory")


def build_app(settings: NodeSettings, token: str | None) -> FastAPI:
    """Return the service; its children are found on start and ended on stop."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    node = Node(settings)
    server = JobServer(settings.state_dir / "jobs.sqlite", node.kinds())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await node.find_children()
        try:
            async with server.running():
                yield
        finally:
            await node.stop_children()

    app = make_app("EPI Factory node agent", VERSION)
    app.router.lifespan_context = lifespan
    guard = [Depends(bearer_guard(token))]

    @app.get("/v1/health", dependencies=guard)
    async def health() -> Health:
        """Say who this is."""
        return Health(service="node_agent", name=settings.name, version=VERSION, utc_ns=utc_ns())

    @app.get("/v1/facts", dependencies=guard)
    async def facts() -> NodeFacts:
        """Say what this machine is and how it is."""
        return await read_facts(settings)

    app.include_router(job_router(server, token))
    app.include_router(artifact_router(node.store, token))
    return app
