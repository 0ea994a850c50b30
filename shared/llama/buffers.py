"""The buffers that llama.cpp says it has allocated, read from its log: its only report of them.

It logs hundredths of a MiB; what is read is rounded up, so that it is never too little.
"""

import re
from dataclasses import dataclass
from typing import Final

_MIB: Final = 1 << 20
_ROUNDING_BYTES: Final = int(0.005 * _MIB) + 1
_BUFFER: Final = re.compile(r"(\w+)(?:\[([^\]]*)\])? +(model|KV|RS|compute|output) buffer size = +([\d.]+) MiB")
_CACHE: Final = re.compile(r"size = +([\d.]+) MiB \( *\d+ cells, +(\d+) layers")
_MAPPED: Final = "_Mapped"


@dataclass(frozen=True)
class Buffers:
    """Bytes on one device."""

    device: str
    """`CPU`: the engine's own process; `RPC0`, `RPC1`, ...: devices of a worker, numbered by worker."""
    endpoint: str
    """host:port of an RPC worker; "" for the engine's own process."""
    model: int = 0
    cache: int = 0
    compute: int = 0
    output: int = 0


def read_buffers(text: str) -> tuple[Buffers, ...]:
    """Return what was logged, device by device."""
    sums: dict[tuple[str, str], dict[str, int]] = {}
    for name, endpoint, kind, size in _BUFFER.findall(text):
        of_device = sums.setdefault((str(name).removesuffix(_MAPPED), endpoint), {})
        field = "cache" if kind in ("KV", "RS") else str(kind)
        of_device[field] = of_device.get(field, 0) + _bytes(size)
    return tuple(Buffers(device, endpoint, **found) for (device, endpoint), found in sums.items())


def read_caches(text: str) -> tuple[tuple[int, int], ...]:
    """Return (bytes, layers that share them) of each cache: logged also where nothing is allocated."""
    return tuple((_bytes(size), int(layers)) for size, layers in _CACHE.findall(text))


def _bytes(mebibytes: str) -> int:
    size = float(mebibytes)
    return int(size * _MIB) + _ROUNDING_BYTES if size else 0
