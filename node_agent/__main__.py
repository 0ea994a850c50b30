"""`python -m node_agent --config FILE.toml`: run the node agent until SIGTERM or SIGINT."""

import argparse
import sys
from pathlib import Path

from node_agent.app import build_app
from node_agent.settings import NodeSettings
from shared.auth import check_bind, load_token
from shared.errors import EpiError
from shared.http import serve
from shared.settings import load_settings


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
    app = build_app(settings, token)
    print(f"node agent {settings.name}: http://{settings.host}:{settings.port}", file=sys.stderr, flush=True)
    serve(app, host=settings.host, port=settings.port, token=token)


if __name__ == "__main__":
    main()
