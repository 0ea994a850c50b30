"""llama.cpp's RPC, both ends: a server that lends this machine's CPU, and the devices that a client sees.

Not here: the worker process and its keep-alive (node_agent.engines), how layers are shared out (`layer_split`).
"""

import ctypes

from shared.kernel.errors import InfrastructureError
from shared.llama.model import ggml

_CPU_DEVICE = 0  # GGML_BACKEND_DEVICE_TYPE_CPU


def serve(endpoint: str, threads: int, n_devices: int = 1) -> None:
    """Lend the CPU, as `n_devices` devices, on `endpoint` (host:port); returns only when listening failed."""
    find = ggml("").ggml_backend_dev_by_type
    find.argtypes, find.restype = [ctypes.c_int], ctypes.c_void_p
    start = ggml("rpc").ggml_backend_rpc_start_server
    start.argtypes = [
        ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p)
    ]  # fmt: skip
    start.restype = None
    devices = (ctypes.c_void_p * n_devices)(*[find(_CPU_DEVICE)] * n_devices)
    start(endpoint.encode(), None, threads, n_devices, devices)


def connect(endpoint: str, n_devices: int = 1) -> list[int]:
    """Return the addresses of the devices that the server at `endpoint` (host:port) lends.

    Raises:
        InfrastructureError: nobody answers there. (llama.cpp may instead end the process; its parent then finds out.)
    """
    add = ggml("rpc").ggml_backend_rpc_add_server
    add.argtypes, add.restype = [ctypes.c_char_p], ctypes.c_void_p
    get = ggml().ggml_backend_reg_dev_get
    get.argtypes, get.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_void_p
    registry = add(endpoint.encode())
    if not registry:
        raise InfrastructureError("the RPC worker does not answer", where=endpoint, hint="is it running?")
    return [int(get(registry, number)) for number in range(n_devices)]
