"""One bearer token an agent: read from a file or the environment, compared in constant time."""

import hmac
import ipaddress
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from starlette.requests import HTTPConnection

from shared.errors import AuthError, ConfigurationError


def make_token() -> str:
    """Return a new random token of 256 bits."""
    return secrets.token_urlsafe(32)


def load_token(token_file: Path | None) -> str | None:
    """Read the token from `token_file`, a systemd credential named `token`, or `EPI_TOKEN`; None when there is none.

    Raises:
        ConfigurationError: the file named does not exist or is empty.
    """
    if token_file is None and (directory := os.environ.get("CREDENTIALS_DIRECTORY")):
        candidate = Path(directory) / "token"
        token_file = candidate if candidate.exists() else None
    if token_file is None:
        return os.environ.get("EPI_TOKEN") or None
    try:
        token = token_file.read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"the token file cannot be read: {error.strerror}", where=str(token_file), hint="run `epi up` to make one"
        ) from error
    if not token:
        raise ConfigurationError("the token file is empty", where=str(token_file))
    return token


def check_bind(host: str, token: str | None) -> None:
    """Refuse to listen beyond loopback without a token.

    Raises:
        ConfigurationError: `host` is not a loopback address and there is no token.
    """
    loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    if not loopback and token is None:
        raise ConfigurationError(
            "refusing to listen beyond loopback without a token", where=host, hint="give --token-file"
        )


def bearer_guard(token: str | None) -> Callable[[HTTPConnection], None]:
    """Return a FastAPI dependency that refuses HTTP and WebSocket requests without the right bearer token.

    With `token` None (loopback only, see `check_bind`) everything is let in.

    Raises (the dependency):
        AuthError: the header is missing or wrong.
    """

    def guard(connection: HTTPConnection) -> None:
        if token is None:
            return
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise AuthError(
                "missing or wrong bearer token", where=connection.url.path, hint="send 'Authorization: Bearer TOKEN'"
            )

    return guard
