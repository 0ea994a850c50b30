"""Who is connected to this node's worker, by the kernel's table: nobody is connected to, nothing is sent.

A worker serves one client at a time and asks nobody who he is, so that any connection keeps the engine out. Which
client is the engine, only the root's node knows: the orchestrator holds both against each other. Not here: that.
"""

import contextlib
from ipaddress import ip_address

import psutil

from shared.wire.node_jobs.engines import NodeConnections, WorkerClient


def read_connections(worker: tuple[str, int | None], engine_pid: int | None) -> NodeConnections:
    """Return the connections of the worker at (host:port, pid), and this end of the engine's."""
    endpoint, worker_pid = worker
    port = int(endpoint.rpartition(":")[2])
    table = [one for one in psutil.net_connections(kind="tcp") if one.status == psutil.CONN_ESTABLISHED]
    owner = {_address(one.laddr): one.pid for one in table}
    clients = [
        WorkerClient(
            address=_address(one.raddr), program=_program(owner.get(_address(one.raddr))),
            served=one.pid is not None and one.pid == worker_pid,
        )
        for one in table
        if worker_pid is not None and one.laddr.port == port and one.pid in (None, worker_pid)
    ]  # fmt: skip
    return NodeConnections(
        worker=None if worker_pid is None else endpoint,
        clients=tuple(sorted(clients, key=lambda one: one.address)),
        engine=tuple(sorted(_address(one.laddr) for one in table if engine_pid is not None and one.pid == engine_pid)),
    )


def _address(end: "psutil._common.addr") -> str:
    host = ip_address(end.ip)
    mapped = getattr(host, "ipv4_mapped", None)
    return f"{mapped or host}:{end.port}"


def _program(pid: int | None) -> str:
    """Return the name of a process of this machine, "" where there is none or it is not ours to see."""
    with contextlib.suppress(psutil.Error):
        if pid is not None:
            return f"{psutil.Process(pid).name()}, pid {pid}"
    return ""
