"""`python -m orchestrator --config FILE.toml`: run the orchestrator until SIGTERM or SIGINT."""

import sys
from functools import partial

from orchestrator.app import build_app
from orchestrator.settings import OrchestratorSettings
from shared.kernel.settings import load_settings
from shared.service.daemon import Daemon

DAEMON = Daemon("orchestrator", "orchestrator", partial(load_settings, OrchestratorSettings), build_app)

if __name__ == "__main__":
    sys.exit(DAEMON.main())
