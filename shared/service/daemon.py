"""The one way a daemon is run: settings, logging, token, its state folder for itself, serving, exit code.

A daemon is a settings class and a function that makes its application; what it does between start and end is the
application's lifespan. Exit codes: 0 after SIGTERM or SIGINT, 1 with one line on stderr when it cannot work.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from fastapi import FastAPI

from shared.kernel.build import software_build
from shared.kernel.errors import EpiError
from shared.kernel.settings import DaemonSettings
from shared.service.auth import check_bind, load_token
from shared.service.http import serve
from shared.service.lock import held_alone
from shared.service.logs import configure_logging

log = logging.getLogger(__name__)

LOCK_NAME: Final = "daemon.lock"
S = TypeVar("S", bound=DaemonSettings)


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
        try:
            self.run(self.load(config))
        except EpiError as error:
            handler.say(logging.ERROR, f"error: {error}")
            return 1
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
