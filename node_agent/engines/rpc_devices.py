"""Remote workers as llama.cpp devices. Not here: how the layers are shared out (`shared.llama.layer_split`)."""

import ctypes

from shared.llama.model import ggml
from shared.llama.rpc import connect as connect_all


def connect(endpoint: str) -> int:
    """Return the address of the device that the RPC worker at `endpoint` (host:port) lends.

    Raises:
        InfrastructureError: nobody answers there. (llama.cpp may instead end the process; its parent then finds out.)
    """
    return connect_all(endpoint)[0]


def memory_bytes(endpoint: str) -> int:
    """Return the physical memory of the connected RPC worker's machine, 1 when it does not say."""
    ask = ggml("rpc").ggml_backend_rpc_get_device_memory
    size = ctypes.POINTER(ctypes.c_size_t)
    ask.argtypes, ask.restype = [ctypes.c_char_p, ctypes.c_uint32, size, size], None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ask(endpoint.encode(), 0, ctypes.byref(free), ctypes.byref(total))
    return max(1, int(total.value))
