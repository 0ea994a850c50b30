"""`python -m surgeon --config FILE.toml`: run the surgeon's daemon."""

import argparse
import sys
from pathlib import Path

from shared.kernel.errors import EpiError
from shared.service.auth import load_token
from shared.service.http import serve
from surgeon.app import build_app
from surgeon.settings import load


def main() -> None:
    """Read the settings and serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m surgeon", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="settings in TOML")
    config: Path = parser.parse_args().config
    try:
        settings = load(config)
        token = load_token(settings.token_file)
        app = build_app(settings, token)
        print(f"surgeon {settings.name} listens on http://{settings.host}:{settings.port}", file=sys.stderr, flush=True)
        serve(app, settings, token)
    except EpiError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
