"""One bearer token an agent: read from a file or the environment; and the count of those who brought a wrong one.

Not here: who may enter with what (`shared.service.admission`).
"""

import ipaddress
import os
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path

from shared.kernel.errors import ConfigurationError
from shared.service.logs import hide

_ADDRESSES_KEPT = 1000


def make_token() -> str:
    """Return a new random token of 256 bits."""
    return secrets.token_urlsafe(32)


def load_token(token_file: Path | None) -> str | None:
    """Read the token from `token_file`, a systemd credential named `token`, or `EPI_TOKEN`; None when there is none.

    What was read is never written into a log.

    Raises:
        ConfigurationError: the file named does not exist or is empty.
    """
    if token_file is None and (directory := os.environ.get("CREDENTIALS_DIRECTORY")):
        candidate = Path(directory) / "token"
        token_file = candidate if candidate.exists() else None
    if token_file is None:
        token = os.environ.get("EPI_TOKEN") or None
        hide(token)
        return token
    try:
        token = token_file.read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"the token file cannot be read: {error.strerror}", where=str(token_file), hint="run `epi up` to make one"
        ) from error
    if not token:
        raise ConfigurationError("the token file is empty", where=str(token_file))
    hide(token)
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


class FailureLimiter:
    """Counts failed attempts of each address; after `limit` within `window_s` the address is refused for a while."""

    def __init__(self, limit: int = 20, window_s: float = 60.0, now: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._window_s = window_s
        self._now = now
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def blocked(self, address: str) -> bool:
        """Tell whether the address has failed too often lately."""
        failures = self._failures.get(address)
        if failures is None:
            return False
        while failures and failures[0] < self._now() - self._window_s:
            failures.popleft()
        return len(failures) >= self._limit

    def failed(self, address: str) -> None:
        """Note a failed attempt; the memory is bounded, the address seen longest ago is forgotten first."""
        failures = self._failures.setdefault(address, deque(maxlen=self._limit))
        failures.append(self._now())
        self._failures.move_to_end(address)
        while len(self._failures) > _ADDRESSES_KEPT:
            self._failures.popitem(last=False)
