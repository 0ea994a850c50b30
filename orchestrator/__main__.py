"""`python -m orchestrator --config FILE.toml`: the orchestrator daemon."""

import argparse
import sys
from pathlib import Path

from orchestrator.app import build_app
from orchestrator.settings import OrchestratorSettings
from shared.kernel.errors import EpiError
from shared.kernel.settings import load_settings
from shared.service.auth import load_token
from shared.service.http import serve


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="settings (TOML)")
    arguments = parser.parse_args()
    try:
        settings = load_settings(OrchestratorSettings, arguments.config)
        token = load_token(settings.token_file)
        serve(build_app(settings), settings, token)
    except EpiError as error:
        print(f"orchestrator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
