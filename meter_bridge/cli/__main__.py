"""`python -m meter_bridge.cli ...`: the same as `epi meter ...`, where the console script is not installed."""

import sys

from meter_bridge.cli import app
from shared.kernel.errors import EpiError

if __name__ == "__main__":
    try:
        app()
    except EpiError as error:
        sys.exit(f"error: {error}")
