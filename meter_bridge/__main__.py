"""`python -m meter_bridge --config bridge.toml`: run the bridge until SIGTERM or SIGINT."""

import argparse
import logging
import sys
from pathlib import Path

from meter_bridge.app import bridge_app
from meter_bridge.bridge import Bridge
from meter_bridge.settings import BridgeSettings
from shared.kernel.errors import EpiError
from shared.kernel.settings import load_settings
from shared.service.auth import load_token
from shared.service.http import serve


def main() -> None:
    """Run the daemon; a wrong setting ends in one message and exit code 1."""
    arguments = argparse.ArgumentParser(prog="python -m meter_bridge", description=__doc__)
    arguments.add_argument("--config", type=Path, required=True, help="TOML file, see docs/operations.md")
    config: Path = arguments.parse_args().config
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = load_settings(BridgeSettings, config)
        token = load_token(settings.token_file)
        app = bridge_app(Bridge(settings), token)
        print(f"meter bridge {settings.name}: http://{settings.host}:{settings.port}", file=sys.stderr, flush=True)
        serve(app, settings, token)
    except EpiError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
