"""The one shape in which every service answers an error, ours or the framework's: `{"error": {...}}`."""

from collections.abc import Mapping

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from shared.kernel.defects import field_defects
from shared.kernel.errors import EpiError, ErrorPayload, Fault

MAX_REASON_BYTES = 120
"""What fits into the close frame of a WebSocket (RFC 6455, 5.5: 125 bytes with the code)."""
POLICY_VIOLATION = 1008
"""Close code of a WebSocket that may not be opened (RFC 6455, 7.4.1)."""
_INTERNAL_ERROR = 1011


ERROR_STATUSES = {
    400: "The body cannot be read at all",
    401: "Missing or wrong credentials",
    403: "Asked by a page of another origin, or by a signed-in browser without its form token",
    404: "No such thing",
    405: "No such method here",
    408: "The body did not come in time",
    409: "Somebody else holds it, its state does not allow this, or the protocol versions differ",
    413: "The body is too large, or holds too many values",
    422: "The request does not fit; `where` names the field",
    429: "Wrong credentials too often from this address",
    503: "A machine, link, meter or engine is away: asking again may help",
}
"""What every endpoint of every service may answer besides its success; part of each OpenAPI description."""


def error_response(status: int, payload: ErrorPayload, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return `{"error": {...}}`, the one error shape of every endpoint."""
    return JSONResponse({"error": payload.model_dump()}, status_code=status, headers=headers)


def close_reason(message: str) -> str:
    """Return as much of a message as the close frame of a WebSocket holds."""
    return message.encode()[:MAX_REASON_BYTES].decode(errors="ignore")


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of `app`, ours or the framework's, answer in the one shape."""

    @app.exception_handler(EpiError)
    async def _epi(connection: Request | WebSocket, error: EpiError) -> JSONResponse | None:
        if isinstance(connection, WebSocket):  # a handshake that is refused; without a close it would be a 500
            code = _INTERNAL_ERROR if error.fault == "bug" else POLICY_VIOLATION
            await connection.close(code, close_reason(error.message))
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
