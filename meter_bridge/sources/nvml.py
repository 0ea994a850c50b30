"""NVIDIA NVML: the board's own power sensor, through the driver's library. Not an AC meter.

Functions and units from nvml.h: nvmlDeviceGetPowerUsage gives milliwatts, for some boards averaged over a second.
"""

import ctypes
from typing import Annotated, ClassVar

from pydantic import Field

from meter_bridge.protocol.frames import Hello
from meter_bridge.sources.base import Source, SourceSettings
from meter_bridge.sources.polled import PolledSource, Reading
from shared.kernel.clock import monotonic_ns
from shared.kernel.errors import InfrastructureError

LIBRARY = "libnvidia-ml.so.1"
_SUCCESS = 0


class NvmlReader:
    """Reads the boards given by index, one channel each."""

    def __init__(self, boards: tuple[int, ...], rate_hz: float, library: str) -> None:
        self._boards = boards
        self._rate_hz = rate_hz
        self._library_name = library
        self._library: ctypes.CDLL | None = None
        self._handles: list[ctypes.c_void_p] = []

    @property
    def hello(self) -> Hello:
        """What it is."""
        return Hello(
            "nvml", "nvml", len(self._boards), self._rate_hz,
            measurement_point="GPU boards by NVML (their own sensor), not the AC inlet",
        )  # fmt: skip

    async def open(self) -> None:
        """Load the driver's library and find the boards."""
        try:
            library = ctypes.CDLL(self._library_name)
        except OSError as error:
            raise InfrastructureError(
                "the NVIDIA driver's library is not here", where=self._library_name, hint="is this the DGX?"
            ) from error
        library.nvmlErrorString.restype = ctypes.c_char_p
        self._check(library, library.nvmlInit_v2(), "nvmlInit")
        self._library, self._handles = library, []
        for board in self._boards:
            handle = ctypes.c_void_p()
            code = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(board), ctypes.byref(handle))
            self._check(library, code, f"GPU {board}")
            self._handles.append(handle)

    async def read(self) -> Reading | None:
        """Return the power of every board."""
        library = self._library
        if library is None:
            return None
        watts = []
        milliwatts = ctypes.c_uint()
        for board, handle in zip(self._boards, self._handles, strict=True):
            code = library.nvmlDeviceGetPowerUsage(handle, ctypes.byref(milliwatts))
            self._check(library, code, f"power of GPU {board}")
            watts.append(milliwatts.value / 1000)
        return Reading(tuple(watts), monotonic_ns())

    async def close(self) -> None:
        """Shut the library down."""
        if self._library is not None:
            self._library.nvmlShutdown()
            self._library = None

    def _check(self, library: ctypes.CDLL, code: int, what: str) -> None:
        if code != _SUCCESS:
            text = (library.nvmlErrorString(code) or b"unknown error").decode(errors="replace")
            raise InfrastructureError(f"NVML: {text}", where=what)


class NvmlSettings(SourceSettings):
    """NVIDIA boards by index, one a channel."""

    kind: ClassVar[str] = "nvml"

    boards: tuple[Annotated[int, Field(ge=0, le=1023)], ...] = Field(default=(0,), min_length=1, max_length=64)
    rate_hz: float = Field(default=10.0, ge=0.01, le=50)

    @property
    def offered_channels(self) -> int:
        """One a board."""
        return len(self.boards)

    def make(self, channels: int) -> Source:
        """Return the source."""
        return PolledSource(NvmlReader(self.boards, self.rate_hz, LIBRARY))


SOURCE = NvmlSettings
