"""TLS, where a lab wants it: a certificate on the server's side, a pinned CA on the client's."""

import ssl
from functools import cache
from pathlib import Path
from typing import Final

from shared.kernel.errors import ConfigurationError

CA_VARIABLE: Final = "EPI_CA_FILE"
"""Environment variable with the lab's own CA, for commands."""
_LAB_CA: Final = Path("/etc/epi-factory/ca.pem")


def lab_ca(given: Path | None) -> Path | None:
    """Return the CA that a command pins: the one given, or that of the lab this machine belongs to; else None."""
    if given is not None:
        return given
    return _LAB_CA if _LAB_CA.is_file() else None


@cache
def system_trust() -> ssl.SSLContext:
    """Return a context that trusts the system's CAs, read once: httpx reads them anew for every client, 27 ms each."""
    return ssl.create_default_context()


@cache
def pinned(ca_file: Path | None) -> ssl.SSLContext | None:
    """Return a context that trusts only the lab's own CA; None without one (plain HTTP, or the system's CAs).

    Raises:
        ConfigurationError: the file holds no certificate.
    """
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"no usable CA certificate: {error}", where=str(ca_file)) from error
