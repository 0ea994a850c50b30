"""What tells two models of one shape apart, whatever format and quantisation: the hash of their routers.

A plan names experts by the rows of the routers. llama.cpp and distributed-llama never quantise routers, and widening
them to F32 is exact, so the base in safetensors, its F16, its Q4_K_M and its .m have one hash, and a plan made on one
of them fits the others.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from shared.checkpoints.base import Range
from shared.checkpoints.finite import first_not_finite
from shared.checkpoints.ggml_types import TENSOR_TYPES
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.regular_files import open_regular

_BLOCKS_AT_ONCE: Final = 1 << 16
_ELEMENTS: Final = {name: elements for name, elements, _ in TENSOR_TYPES.values()}
_BLOCK_BYTES: Final = {name: block_bytes for name, _, block_bytes in TENSOR_TYPES.values()}


def hash_of_routers(routers: Iterable[tuple[str, Range]], n_experts: int) -> str:
    """Return the SHA-256 of the routers' values in F32, one layer after the other; memory is bounded.

    Args:
        routers: ggml type and place of each layer's router.
        n_experts: rows of each router.

    Raises:
        ConfigurationError: a router that holds no numbers.
        DataError: a file became shorter, or a weight is NaN or infinite; layer and expert are named.
    """
    digest = hashlib.sha256()
    for layer, (kind, place) in enumerate(routers):
        if kind not in _BLOCK_BYTES:
            raise ConfigurationError(f"a router of the type {kind}", where=str(place.source))
        with open_regular(place.source) as file:
            file.seek(place.offset)
            left = place.length
            while left:
                data = file.read(min(left, _BLOCKS_AT_ONCE * _BLOCK_BYTES[kind]))
                if not data:
                    raise DataError("the checkpoint became shorter while it was read", where=str(place.source))
                values = data if kind == "F32" else _widened(data, kind)
                if (wrong := first_not_finite(values)) is not None:
                    before = (place.length - left) // _BLOCK_BYTES[kind] * _ELEMENTS[kind]
                    columns = place.length // _BLOCK_BYTES[kind] * _ELEMENTS[kind] // n_experts
                    raise DataError(
                        f"the router of MoE layer {layer} has a weight that is NaN or infinite, of expert"
                        f" {(before + wrong) // max(columns, 1)}", where=str(place.source),
                        hint="the checkpoint is damaged: get it again, and compare its hash",
                    )  # fmt: skip
                digest.update(values)
                left -= len(data)
    return digest.hexdigest()


def _widened(data: bytes, kind: str) -> bytes:
    from shared.checkpoints.merging import decoded  # numpy, only where it is needed

    return decoded(data, kind).tobytes()
