"""Endpoints about the artifacts of all agents: when they were last hashed, what was damaged, and a scrub at request."""

from fastapi import APIRouter

from orchestrator.campaign.scrubber import AgentArtifacts, Scrubber


def artifact_router(scrubber: Scrubber) -> APIRouter:
    """Return the endpoints."""
    router = APIRouter(prefix="/v1", tags=["lab"])

    @router.get("/lab/artifacts")
    async def artifacts() -> tuple[AgentArtifacts, ...]:
        """Say when each agent's artifacts were last hashed and which were damaged; inside a window as last known."""
        return await scrubber.status()

    @router.post("/lab/scrub", status_code=202)
    async def scrub() -> tuple[AgentArtifacts, ...]:
        """Let every agent hash all its artifacts from now on; 409 while a campaign runs, which also ends it."""
        scrubber.request()
        return await scrubber.status()

    return router
