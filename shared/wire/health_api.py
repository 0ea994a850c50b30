"""`GET /v1/health` of every daemon: who answers here, and what is wrong with it."""

from typing import Any

from fastapi import APIRouter

from shared.kernel.build import software_build
from shared.kernel.clock import utc_ns
from shared.kernel.records import NodeName
from shared.service.health import HealthRegistry
from shared.wire.protocol import Health, ServiceName


def health_of(service: ServiceName, name: NodeName, registry: HealthRegistry) -> Health:
    """Return a daemon's health as it is now."""
    return Health(
        service=service, name=name, version=str(software_build()), build=software_build(), utc_ns=utc_ns(),
        status=registry.status, problems=registry.problems(),
    )  # fmt: skip


def health_router(service: ServiceName, name: NodeName, registry: HealthRegistry, **options: Any) -> APIRouter:
    """Return the endpoint; `options` are the router's."""
    router = APIRouter(prefix="/v1", **options)

    @router.get("/health")
    async def health() -> Health:
        """Say who answers here, and what is wrong: `degraded` still works, `failing` does not."""
        return health_of(service, name, registry)

    return router
