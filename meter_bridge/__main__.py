"""`python -m meter_bridge --config FILE.toml`: run the meter bridge until SIGTERM or SIGINT."""

import sys
from functools import partial

from meter_bridge.app import build_app
from meter_bridge.settings import BridgeSettings
from shared.kernel.settings import load_settings
from shared.service.daemon import Daemon

DAEMON = Daemon("meter_bridge", "meter bridge", partial(load_settings, BridgeSettings), build_app)

if __name__ == "__main__":
    sys.exit(DAEMON.main())
