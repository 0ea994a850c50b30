"""What every HTTP service of the lab has in common: its guard, its limits, its description, and how it is served.

From the outside in, a request passes: the connection's limits (`connections`), the audit log (`audit`), what browsers
are told (`page_headers`), the guard (`guard`), the limit of its body (`bodies`), and then its endpoint, whose errors
have one shape (`error_answers`).
"""

import asyncio
import contextlib
import logging
import resource
import signal
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from shared.kernel.errors import ConfigurationError, ErrorBody, InfrastructureError
from shared.kernel.settings import DaemonSettings
from shared.service import api_page
from shared.service.admission import Admission
from shared.service.audit import AuditLog
from shared.service.auth import check_bind
from shared.service.bodies import BodyLimit, BodySize
from shared.service.connections import IDLE_S, MAX_CONNECTIONS, MAX_HEAD_BYTES, BoundedConnection, BoundedLoop
from shared.service.error_answers import ERROR_STATUSES, install_error_handlers
from shared.service.guard import TokenGuard
from shared.service.page_headers import PageHeaders
from shared.service.sessions import Sessions
from shared.service.systemd import announced

log = logging.getLogger(__name__)

_MAX_MESSAGE_BYTES = 64 * 1024
"""Of what a client says on a WebSocket: the services only talk there."""
_STOPPING_S = 10
"""How long requests that are being answered may take when the service stops."""
_OPEN_FILES = 8192
_DESCRIPTION = ("/openapi.json", *api_page.PATHS)
_REF_TEMPLATE = "#/components/schemas/{model}"


def make_app(
    title: str,
    version: str,
    token: str | None,
    *,
    sessions: Sessions | None = None,
    open_paths: Iterable[str] = (),
    larger_bodies: Mapping[str, BodySize] | None = None,
) -> FastAPI:
    """Return an empty service with the lab's guard, limits and error shape.

    Args:
        title: For the description.
        version: Of EPI Factory.
        token: The bearer token that every request needs; None lets everybody in (loopback only, see `check_bind`).
        sessions: Of browsers that are signed in; None where there is no page to sign in to.
        open_paths: What needs no token besides the description; a path that ends in `/` opens everything below it.
        larger_bodies: Beginning of a path -> what the bodies of its requests may hold.
    """
    # Spelled out: a model here would take the media type of its endpoint, and errors are JSON everywhere.
    content = {"application/json": {"schema": {"$ref": _REF_TEMPLATE.format(model=ErrorBody.__name__)}}}
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "content": content} for status, text in ERROR_STATUSES.items()
    }
    app = FastAPI(
        title=title, version=version, openapi_url="/openapi.json", docs_url=None, redoc_url=None, responses=responses
    )
    install_error_handlers(app)
    _describe(app)
    app.include_router(api_page.api_page_router(title, signs_in=sessions is not None))
    app.add_middleware(BodyLimit, larger=larger_bodies)
    app.add_middleware(
        TokenGuard, admission=Admission(token, sessions), open_paths=(*_DESCRIPTION, *open_paths), sessions=sessions
    )
    app.add_middleware(PageHeaders)
    return app


def server_config(app: FastAPI, settings: DaemonSettings) -> uvicorn.Config:
    """Return how `app` is served: bounded connections, no header believed about who asks, an audit log."""
    proxies = [str(network) for network in settings.trusted_proxies]
    return uvicorn.Config(
        AuditLog(app, settings.audit_file), host=settings.host, port=settings.port, log_config=None, lifespan="off",
        http=BoundedConnection, backlog=MAX_CONNECTIONS,
        timeout_keep_alive=IDLE_S, h11_max_incomplete_event_size=MAX_HEAD_BYTES, ws_max_size=_MAX_MESSAGE_BYTES,
        access_log=False, date_header=False, ssl_certfile=settings.tls_cert, ssl_keyfile=settings.tls_key,
        proxy_headers=bool(proxies), forwarded_allow_ips=proxies, timeout_graceful_shutdown=_STOPPING_S,
    )  # fmt: skip


def serve(app: FastAPI, settings: DaemonSettings, token: str | None) -> None:
    """Serve `app` as the settings say until SIGTERM or SIGINT, with an audit log in the state folder.

    Raises:
        ConfigurationError: the host is beyond loopback and there is no token, or a TLS file is missing.
        InfrastructureError: the address cannot be bound.
        Exception: whatever the application's lifespan raises.
    """
    check_bind(settings.host, token)
    for path in (settings.tls_cert, settings.tls_key):
        if path is not None and not path.is_file():
            raise ConfigurationError("no such TLS file", where=str(path))
    _allow_open_files(_OPEN_FILES)
    with asyncio.Runner(loop_factory=BoundedLoop) as runner:
        runner.run(_serve(app, _QuietServer(server_config(app, settings))))


async def _serve(app: FastAPI, server: "_QuietServer") -> None:
    """Run the application's lifespan around the server's, so that what fails at the start is raised as it is."""
    with server.capture_signals():
        async with app.router.lifespan_context(app):
            if server.should_exit:
                return
            try:
                await server.serve()
            except SystemExit as error:  # uvicorn has logged why
                raise InfrastructureError(
                    "cannot listen here", where=f"{server.config.host}:{server.config.port}",
                    hint="is the port in use? the line before says more",
                ) from error  # fmt: skip


def _allow_open_files(wanted: int) -> None:
    """Raise the soft limit where the hard one allows it: a shell's 1024 would be used up by 1024 TLS handshakes."""
    with contextlib.suppress(OSError, ValueError):  # a unit's sandbox may forbid it, and says LimitNOFILE itself
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _QuietServer(uvicorn.Server):
    """Sleeps until a request or a signal comes, and ends with exit code 0 on SIGTERM and SIGINT.

    uvicorn's own main loop wakes ten times a second, which alone costs an agent 0.2 % of a core while it should be
    silent; and it raises the signal again after a clean end.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.on_tick(0)
        async with announced():
            scheme = "https" if self.config.is_ssl else "http"
            log.info("listens on %s://%s:%s", scheme, self.config.host, self.config.port)
            if not self.should_exit:
                await self._stop.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)


def _describe(app: FastAPI) -> None:
    """Add to the OpenAPI description the one error shape and that every endpoint wants the bearer token."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            components = schema.setdefault("components", {})
            _, shapes = models_json_schema([(ErrorBody, "serialization")], ref_template=_REF_TEMPLATE)
            components.setdefault("schemas", {}).update(shapes["$defs"])
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"token": []}]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
