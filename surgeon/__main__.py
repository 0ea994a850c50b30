"""`python -m surgeon --config FILE.toml`: run the surgeon until SIGTERM or SIGINT."""

import sys

from shared.service.daemon import Daemon
from surgeon.app import build_app
from surgeon.settings import load

DAEMON = Daemon("surgeon", "surgeon", load, build_app)

if __name__ == "__main__":
    sys.exit(DAEMON.main())
