"""Remote workers as llama.cpp devices, and which share of the layers each one gets."""

import ctypes
from collections.abc import Sequence

from shared.kernel.errors import InfrastructureError
from shared.llama.model import ggml


def connect(endpoint: str) -> int:
    """Return the address of the device that the RPC worker at `endpoint` (host:port) lends.

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
    return int(get(registry, 0))


def memory_bytes(endpoint: str) -> int:
    """Return the physical memory of the connected RPC worker's machine, 1 when it does not say."""
    ask = ggml("rpc").ggml_backend_rpc_get_device_memory
    size = ctypes.POINTER(ctypes.c_size_t)
    ask.argtypes, ask.restype = [ctypes.c_char_p, ctypes.c_uint32, size, size], None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ask(endpoint.encode(), 0, ctypes.byref(free), ctypes.byref(total))
    return max(1, int(total.value))


def layers_by_memory(n_layers: int, memory: Sequence[int]) -> list[int]:
    """Return how many layers each device gets, in proportion to its memory (largest remainders, earlier ones first).

    Total, not free memory decides: machines of one kind then share evenly, whatever else they hold at the moment.
    """
    total = sum(memory)
    if not memory:
        return []
    counts = [n_layers * size // total for size in memory]
    remainders = [n_layers * size % total for size in memory]
    order = sorted(range(len(memory)), key=lambda device: (-remainders[device], device))
    for device in order[: n_layers - sum(counts)]:
        counts[device] += 1
    return counts


def layer_shares(counts: Sequence[int]) -> list[float]:
    """Return llama.cpp's `tensor_split` that puts `counts` layers on the devices, the output matrix on the last one.

    llama.cpp gives unit i of n_layers + 1 (the last one is the output) to the first device whose cumulative share
    exceeds i / (n_layers + 1). Boundaries half a unit below that are safe from rounding. With equal shares, 4 layers
    on 4 devices would be split 2, 1, 1, 0.
    """
    shares: list[float] = []
    placed = 0.0
    units = 0
    for count in counts[:-1]:
        units += count
        boundary = max(units - 0.5, 0.0)
        shares.append(boundary - placed)
        placed = boundary
    return [*shares, sum(counts) + 1 - placed] if counts else []


def local_last(endpoints: Sequence[str], local: str) -> list[str]:
    """Return the endpoints with this machine's own worker last.

    The last device holds the output matrix and returns the logits, which are by far the largest thing that comes back
    (600 kB a token for a vocabulary of 151,936): they should not cross the net.
    """
    return [*(endpoint for endpoint in endpoints if endpoint != local), *([local] if local in endpoints else [])]
