"""Keepalive on sockets that llama.cpp opens: set while a load is still going on, not only at its end."""

import socket
import time

from node_agent.engines.keepalive import keeping_alive


def is_kept_alive(one: socket.socket) -> bool:
    return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) and (
        one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) > 0
    )


def test_a_connection_opened_inside_is_kept_alive_before_the_end() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        keeping_alive(),
        socket.create_connection(listener.getsockname()) as client,
    ):
        deadline = time.monotonic() + 10
        while not is_kept_alive(client) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert is_kept_alive(client)
