"""`python -m node_agent --config FILE.toml`: run the node agent until SIGTERM or SIGINT."""

import argparse
import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node_agent.app import build_app
from node_agent.settings import NodeSettings
from shared.kernel.errors import ConflictError, EpiError
from shared.kernel.settings import load_settings
from shared.service.auth import check_bind, load_token
from shared.service.http import serve


def main() -> None:
    """Read the settings and serve; an error of the lab ends in one clear message and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m node_agent", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE.toml")
    arguments = parser.parse_args()
    try:
        run(load_settings(NodeSettings, arguments.config))
    except EpiError as error:
        sys.exit(f"error: {error}")


def run(settings: NodeSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        EpiError: the token cannot be read, or the address may not be bound.
    """
    token = load_token(settings.token_file)
    check_bind(settings.host, token)
    with alone(settings.state_dir):
        app = build_app(settings, token)
        print(f"node agent {settings.name}: http://{settings.host}:{settings.port}", file=sys.stderr, flush=True)
        serve(app, settings, token)


@contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """Hold the state folder's lock: a second agent would adopt the first one's engine and end it with itself.

    Raises:
        ConflictError: another agent holds it.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(
                "another node agent runs with this state folder", where=str(state_dir), hint="stop it first"
            ) from error
        yield


if __name__ == "__main__":
    main()
