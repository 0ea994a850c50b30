"""The exception tree of the lab, grouped by who has to act.

EpiError
├── ConfigurationError    the user's spec, plan or command cannot work: never retried
│   └── NotFoundError     a named thing does not exist
├── DataError             a file, frame or body is damaged or hostile: never retried
├── InfrastructureError   a machine, link, meter or engine failed: retried
│   ├── ConflictError     somebody else holds the resource, or versions differ
│   └── StorageError      a disk takes nothing: full, failing, read-only
├── AuthError             missing or wrong credentials
│   ├── TooManyFailuresError  wrong too often from one address
│   └── ForgedRequestError    another site's page asks with the cookie of a signed-in browser
└── BugError              a broken promise inside the lab: report it

Every error says what happened (`message`), to what (`where`) and what to do (`hint`). `to_payload` is the one JSON
shape of an error on every endpoint and in every job record; `error_of_reply` reads it back.
"""

from typing import ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

_QUOTED_CHARACTERS: Final = 200
Fault = Literal["configuration", "data", "infrastructure", "auth", "bug"]


class ErrorPayload(BaseModel):
    """The one JSON shape of an error: `{"error": ErrorPayload}` on every endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    fault: Fault
    message: str
    where: str = ""
    hint: str = ""

    @field_validator("message", "where", "hint", mode="before")
    @classmethod
    def _is_text(cls, value: object) -> object:
        """Replace what no UTF-8 text can hold: a hostile request's own words may be quoted here."""
        return value.encode(errors="replace").decode() if isinstance(value, str) else value


class ErrorBody(BaseModel):
    """The body of every answer that is no success."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: ErrorPayload


class EpiError(Exception):
    """Base of all errors that the lab raises on purpose."""

    fault: ClassVar[Fault] = "bug"
    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.hint})" if self.hint else text

    def to_payload(self) -> ErrorPayload:
        """Return the error as the wire and the journal hold it."""
        return ErrorPayload(code=self.code, fault=self.fault, message=self.message, where=self.where, hint=self.hint)


class ConfigurationError(EpiError):
    """What the user asked for cannot work; asking again will not help."""

    fault = "configuration"
    code = "configuration"
    http_status = 422


class NotFoundError(ConfigurationError):
    """A named thing does not exist."""

    code = "not_found"
    http_status = 404


class DataError(EpiError):
    """A file, frame or body is damaged, truncated or hostile."""

    fault = "data"
    code = "data"
    http_status = 422


class InfrastructureError(EpiError):
    """A machine, link, meter or engine failed; trying again may help."""

    fault = "infrastructure"
    code = "infrastructure"
    http_status = 503


class ConflictError(InfrastructureError):
    """Somebody else holds the resource, or the protocol versions differ."""

    code = "conflict"
    http_status = 409


class StorageError(InfrastructureError):
    """A disk takes nothing: full, failing or read-only; it may take again once somebody has made room."""

    code = "storage"


class AuthError(EpiError):
    """Missing or wrong credentials."""

    fault = "auth"
    code = "unauthorized"
    http_status = 401


class TooManyFailuresError(AuthError):
    """Credentials were wrong too often from one address."""

    code = "too_many_failures"
    http_status = 429


class ForgedRequestError(AuthError):
    """A request that a page of another origin may have made, in the name of whoever is signed in."""

    code = "forged_request"
    http_status = 403


class BugError(EpiError):
    """A promise inside the lab was broken."""

    fault = "bug"
    code = "bug"
    http_status = 500


_BY_CODE: dict[str, type[EpiError]] = {
    cls.code: cls
    for cls in (
        ConfigurationError, NotFoundError, DataError, InfrastructureError, ConflictError, StorageError, AuthError,
        TooManyFailuresError, ForgedRequestError, BugError,
    )
}  # fmt: skip

_BY_FAULT: dict[Fault, type[EpiError]] = {
    "configuration": ConfigurationError,
    "data": DataError,
    "infrastructure": InfrastructureError,
    "auth": AuthError,
    "bug": BugError,
}


def from_payload(payload: ErrorPayload) -> EpiError:
    """Rebuild the exception that a remote part reported; a code unknown here is known by its fault."""
    cls = _BY_CODE.get(payload.code) or _BY_FAULT[payload.fault]
    return cls(payload.message, where=payload.where, hint=payload.hint)


def error_of_reply(status: int, body: bytes, where: str) -> EpiError:
    """Return what an HTTP answer that is no success means: the error in it, or else what its status says."""
    try:
        return from_payload(ErrorBody.model_validate_json(body, extra="ignore").error)
    except ValidationError:
        text = " ".join(body.decode("utf-8", "replace").split())[:_QUOTED_CHARACTERS]
        return _of_status(status)(f"HTTP {status}{f': {text}' if text else ''}", where=where)


def _of_status(status: int) -> type[EpiError]:
    by_status: dict[int, type[EpiError]] = {
        401: AuthError, 403: AuthError, 404: NotFoundError, 408: InfrastructureError, 409: ConflictError,
        429: TooManyFailuresError,
    }  # fmt: skip
    if status in by_status:
        return by_status[status]
    return ConfigurationError if 400 <= status < 500 else InfrastructureError
