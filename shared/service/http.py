"""What every HTTP service of the lab has in common: one error shape, body limits, and how it is served."""

import asyncio
import logging
import signal
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.kernel.defects import field_defects
from shared.kernel.errors import ConfigurationError, EpiError, ErrorBody, ErrorPayload, Fault, InfrastructureError
from shared.kernel.settings import DaemonSettings
from shared.service.audit import AuditLog
from shared.service.auth import check_bind
from shared.service.systemd import announced

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_REASON_BYTES = 120
"""What fits into the close frame of a WebSocket (RFC 6455, 5.5: 125 bytes with the code)."""
_REF_TEMPLATE = "#/components/schemas/{model}"
_POLICY_VIOLATION = 1008
_INTERNAL_ERROR = 1011


ERROR_STATUSES = {
    400: "The body cannot be read at all",
    401: "Missing or wrong credentials",
    404: "No such thing",
    405: "No such method here",
    409: "Somebody else holds it, its state does not allow this, or the protocol versions differ",
    413: "The body is too large",
    422: "The request does not fit; `where` names the field",
    429: "Wrong credentials too often from this address",
    503: "A machine, link, meter or engine is away: asking again may help",
}
"""What every endpoint of every service may answer besides its success; part of each OpenAPI description."""


def error_response(status: int, payload: ErrorPayload) -> JSONResponse:
    """Return `{"error": {...}}`, the one error shape of every endpoint."""
    return JSONResponse({"error": payload.model_dump()}, status_code=status)


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of `app`, ours or the framework's, answer in the one shape."""

    @app.exception_handler(EpiError)
    async def _epi(connection: Request | WebSocket, error: EpiError) -> JSONResponse | None:
        if isinstance(connection, WebSocket):  # a handshake that is refused; without a close it would be a 500
            code = _INTERNAL_ERROR if error.fault == "bug" else _POLICY_VIOLATION
            await connection.close(code, error.message.encode()[:MAX_REASON_BYTES].decode(errors="ignore"))
            return None
        return error_response(error.http_status, error.to_payload())

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        found = field_defects(error)
        payload = ErrorPayload(
            code="validation", fault="configuration", message=found[0].reason, where=found[0].field,
            hint=f"{len(found)} field(s) at fault; see /docs for the schema",
        )  # fmt: skip
        return error_response(422, payload)

    @app.exception_handler(StarletteHTTPException)
    async def _http(request: Request, error: StarletteHTTPException) -> JSONResponse:
        fault: Fault = "bug" if error.status_code >= 500 else "configuration"
        payload = ErrorPayload(
            code=f"http_{error.status_code}", fault=fault, message=str(error.detail), where=request.url.path
        )
        response = error_response(error.status_code, payload)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        payload = ErrorPayload(
            code="bug", fault="bug", message=f"{type(error).__name__}: {error}", where=request.url.path,
            hint="this is a defect of EPI Factory: please report it with the log",
        )  # fmt: skip
        return error_response(500, payload)


class BodyLimit:
    """ASGI middleware that refuses bodies over `limit` bytes with 413.

    A length that is announced is refused before the body is read; a body in chunks is counted while it is read.
    """

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413."""
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            length = headers.get(b"content-length", b"0")
            if not length.isdigit() or int(length) > self._limit:
                payload = ErrorPayload(
                    code="http_413", fault="configuration", message=self._message(), where=scope["path"]
                )
                await error_response(413, payload)(scope, receive, send)
                return
            receive = self._counted(receive)
        await self._app(scope, receive, send)

    def _counted(self, receive: Receive) -> Receive:
        read = 0

        async def counting() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                raise HTTPException(413, self._message())
            return message

        return counting

    def _message(self) -> str:
        return f"the body may have at most {self._limit} bytes"


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
    config = uvicorn.Config(
        AuditLog(app, settings.audit_file), host=settings.host, port=settings.port, log_config=None, lifespan="off",
        ws_max_size=MAX_BODY_BYTES, access_log=False, date_header=False, ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )  # fmt: skip
    asyncio.run(_serve(app, _QuietServer(config)))


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


def make_app(title: str, version: str) -> FastAPI:
    """Return an empty service with the lab's error shape and body limit."""
    # Spelled out: a model here would take the media type of its endpoint, and errors are JSON everywhere.
    content = {"application/json": {"schema": {"$ref": _REF_TEMPLATE.format(model=ErrorBody.__name__)}}}
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "content": content} for status, text in ERROR_STATUSES.items()
    }
    app = FastAPI(title=title, version=version, openapi_url="/openapi.json", responses=responses)
    install_error_handlers(app)
    _describe(app)
    app.add_middleware(BodyLimit)
    return app


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


__all__ = [
    "ERROR_STATUSES", "MAX_BODY_BYTES", "BodyLimit", "ErrorBody", "error_response", "install_error_handlers",
    "make_app", "serve",
]  # fmt: skip
