"""ggml tensors as the eval callback sees them: names, shapes, reading and writing. Use through `shared.llama.model`."""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.kernel.errors import DataError
from shared.llama.library import ggml


class _TensorStruct(ctypes.Structure):
    """`struct ggml_tensor` of ggml.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


_TensorPointer = ctypes.POINTER(_TensorStruct)
_DTYPES: dict[int, type[np.generic]] = {0: np.float32, 1: np.float16, 26: np.int32}


class Tensor:
    """A computed tensor inside the eval callback; valid only until the callback returns."""

    __slots__ = ("_address", "_struct")

    def __init__(self, address: int) -> None:
        self._address = address
        self._struct = ctypes.cast(address, _TensorPointer).contents

    @property
    def name(self) -> str:
        """Name in the graph, for example `ffn_moe_topk-3`."""
        return str(self._struct.name.decode("utf-8", "replace"))

    @property
    def raw_name(self) -> bytes:
        """Name as bytes: the cheap form for a callback that is asked about every node."""
        return bytes(self._struct.name)

    @property
    def ne(self) -> tuple[int, ...]:
        """Sizes, innermost first (ggml order)."""
        return tuple(self._struct.ne)

    def source(self, index: int) -> "Tensor":
        """Return operand `index` of the operation that makes this tensor, for example a matrix product's weights.

        Raises:
            DataError: there is no such operand.
        """
        address = self._struct.src[index]
        if not address:
            raise DataError(f"no operand {index}", where=self.name)
        return Tensor(address)

    def read(self) -> npt.NDArray[Any]:
        """Copy the tensor out; shape is `ne` reversed without leading ones of ggml's four, strides honoured.

        A view such as ffn_moe_topk has rows further apart than its width: reading it flat gives other tensors' values.

        Raises:
            DataError: a type other than F32, F16, I32.
        """
        dtype = _DTYPES.get(self._struct.type)
        if dtype is None:
            raise DataError(f"tensor type {self._struct.type} is not read here", where=self.name)
        size = int(ggml().ggml_nbytes(self._address))
        raw = np.empty(size, np.uint8)
        ggml().ggml_backend_tensor_get(self._address, raw.ctypes.data, 0, size)
        ne, nb = list(self._struct.ne), list(self._struct.nb)
        while len(ne) > 2 and ne[-1] == 1:
            ne.pop()
            nb.pop()
        return np.ndarray(tuple(reversed(ne)), dtype, raw, strides=tuple(reversed(nb)))

    def write(self, values: npt.NDArray[Any]) -> None:
        """Overwrite a contiguous tensor; `values` has the dtype and number of bytes of the tensor.

        Raises:
            DataError: sizes differ.
        """
        data = np.ascontiguousarray(values)
        if data.nbytes != int(ggml().ggml_nbytes(self._address)):
            raise DataError("size differs from the tensor's", where=self.name)
        ggml().ggml_backend_tensor_set(self._address, data.ctypes.data, 0, data.nbytes)
