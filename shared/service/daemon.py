"""The one way a daemon is run: settings, logging, token, its state folder for itself, serving, exit code.

A daemon is a settings class and a function that makes its application; what it does between start and end is the
application's lifespan. One line on stderr says why it cannot work, and the exit code who has to act:

| code | fault | started again |
|---|---|---|
| 0 | none: SIGTERM or SIGINT | no |
| 1 | infrastructure (a full disk, a port in use), or a defect | yes: the unit and the local supervisor do |
| `EXIT_DAMAGED` | a store is damaged, empty or gone | no: it would end like this again |
| `EXIT_HELD` | another process works in the state folder | no |
| `EXIT_SETTINGS` | settings, token or state of another version | no |

Under systemd a daemon that meets the second at its start tries by itself, with growing pauses, for a minute before it
ends: a disk that is full for a moment costs no restart, one that stays full no storm of them.
"""

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from fastapi import FastAPI

from shared.kernel.build import software_build
from shared.kernel.errors import AuthError, ConfigurationError, ConflictError, DataError, EpiError
from shared.kernel.settings import DaemonSettings
from shared.service.auth import check_bind, load_token
from shared.service.http import serve
from shared.service.lock import held_alone
from shared.service.logs import configure_logging
from shared.service.systemd import is_being_started

log = logging.getLogger(__name__)

LOCK_NAME: Final = "daemon.lock"
EXIT_DAMAGED: Final = 65
EXIT_HELD: Final = 73
EXIT_SETTINGS: Final = 78
LASTING: Final = frozenset({EXIT_DAMAGED, EXIT_HELD, EXIT_SETTINGS})
"""Exit codes after which starting again changes nothing; `RestartPreventExitStatus` of the units."""
RETRY_PAUSES_S: tuple[float, ...] = (1, 2, 4, 8, 16, 30)
S = TypeVar("S", bound=DaemonSettings)


def exit_code_of(error: EpiError) -> int:
    """Return with which code a daemon ends that cannot work."""
    if isinstance(error, DataError):
        return EXIT_DAMAGED
    if isinstance(error, ConflictError):
        return EXIT_HELD
    return EXIT_SETTINGS if isinstance(error, ConfigurationError | AuthError) else 1


@dataclass(frozen=True)
class Daemon(Generic[S]):
    """What makes one daemon differ from another: `module` is its name for Python, `name` its name for people."""

    module: str
    name: str
    load: Callable[[Path], S]
    build_app: Callable[[S, str | None], FastAPI]

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run the daemon with the settings file that the command line names, and return the exit code."""
        parser = argparse.ArgumentParser(
            prog=f"python -m {self.module}", description=f"Run the {self.name} until SIGTERM or SIGINT."
        )
        parser.add_argument("--config", type=Path, required=True, metavar="FILE.toml", help="settings")
        config: Path = parser.parse_args(arguments).config
        handler = configure_logging("info")
        pauses_s = iter(RETRY_PAUSES_S)
        while True:
            try:
                self.run(self.load(config))
            except EpiError as error:
                code = exit_code_of(error)
                pause_s = next(pauses_s, None) if code not in LASTING and is_being_started() else None
                again = "" if pause_s is None else f"; tried again in {pause_s:g} s"
                handler.say(logging.ERROR, f"error: {error}{again}")
                if pause_s is None:
                    return code
                time.sleep(pause_s)
            else:
                return 0

    def run(self, settings: S) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            EpiError: the token cannot be read, the address may not be bound, another process works in the state folder,
                or whatever the application raises at its start.
        """
        configure_logging(settings.log_level)
        token = load_token(settings.token_file)
        check_bind(settings.host, token)
        with held_alone(settings.state_dir / LOCK_NAME, self.name):
            log.info("%s %s (version %s) starts in %s", self.name, settings.name, software_build(), settings.state_dir)
            serve(self.build_app(settings, token), settings, token)
            log.info("%s %s has stopped", self.name, settings.name)
