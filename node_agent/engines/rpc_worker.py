"""The RPC worker process: lends this machine's CPU and memory to an engine on another one.

`python -m node_agent.engines.rpc_worker --host 10.0.0.2 --port 50052 --threads 4`

It serves one engine after another until it is ended. llama.cpp's RPC has no authentication: bind it to the cluster's
interface and firewall the rest.
"""

import argparse
import signal
import sys

from node_agent.engines.keepalive import keep_alive_once_listening
from shared.llama.model import api
from shared.llama.rpc import serve as lend


def serve(host: str, port: int, threads: int) -> None:
    """Serve the CPU device on `host:port`; returns only when listening failed."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the C loop below never returns to Python's handlers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the agent, which then ends its workers
    api()
    keep_alive_once_listening()
    lend(f"{host}:{port}", threads)


def main() -> None:
    """Read the arguments and serve; a failure to listen is exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    serve(arguments.host, arguments.port, arguments.threads)
    sys.exit(f"cannot listen on {arguments.host}:{arguments.port}: is another worker running there?")


if __name__ == "__main__":
    main()
