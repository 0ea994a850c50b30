"""Sessions of signed-in browsers that survive a restart of their service: a small file in its state folder."""

import logging
from pathlib import Path
from typing import Final

from shared.files.atomic import write_file
from shared.service.sessions import Sessions

log = logging.getLogger(__name__)

SESSIONS_NAME: Final = "sessions.json"


def kept_sessions(path: Path, token: str | None) -> Sessions | None:
    """Return the sessions written down in `path`; None without a token, where nobody needs to sign in."""
    if token is None:
        return None
    try:
        kept = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        kept = ""
    except (OSError, UnicodeDecodeError) as error:
        log.warning("%s cannot be read, all browsers are signed out: %s", path, error)
        kept = ""
    return Sessions(token, kept, lambda text: write_file(path, text, mode=0o600))
