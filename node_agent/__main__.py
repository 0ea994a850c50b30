"""`python -m node_agent --config FILE.toml`: run the node agent until SIGTERM or SIGINT."""

import sys
from functools import partial

from node_agent.app import build_app
from node_agent.settings import NodeSettings
from shared.kernel.settings import load_settings
from shared.service.daemon import Daemon

DAEMON = Daemon("node_agent", "node agent", partial(load_settings, NodeSettings), build_app)

if __name__ == "__main__":
    sys.exit(DAEMON.main())
