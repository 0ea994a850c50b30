"""Records inside the bridge: the sample as it is stored, and the events beside it.

Not here: what crosses to other parts (`shared.wire.meter_api`, `shared.kernel.records`).
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

from meter_bridge.protocol.frames import Frame

EventKind = Literal[
    "gap", "duplicate", "reset", "malformed", "overflow", "resync", "connected", "disconnected", "stale", "alive",
    "hello", "clock_step", "device_step", "storage_failed", "storage_recovered", "started", "stopped", "ended",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredSample:
    """One frame with its three times: the device's, the arrival, and the fitted one (monotonic and UTC).

    Power is raw, in watts, one value a channel, NaN where the channel sent none; `register_wh` is the device's energy
    register, summed up by the bridge where it clears on read. `extra` packs V, A, PF, VAR (see `pack_extra`).
    """

    utc_ns: int
    mono_ns: int
    arrival_mono_ns: int
    stream_id: int
    anchor_id: int
    power_w: tuple[float, ...]
    seq: int | None = None
    device_ms: int | None = None
    extra: bytes | None = None
    frequency_hz: float | None = None
    register_wh: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event; `count` is how many frames or lines it stands for."""

    utc_ns: int
    mono_ns: int
    kind: EventKind
    count: int = 1
    detail: str = ""


def pack_power(values: tuple[float, ...]) -> bytes:
    """Return the values as little-endian float64: raw watts are kept exactly."""
    return struct.pack(f"<{len(values)}d", *values)


def unpack_power(blob: bytes) -> tuple[float, ...]:
    """Return what `pack_power` packed."""
    return struct.unpack(f"<{len(blob) // 8}d", blob)


_WITHOUT_REGISTER = 0xFFFF_FFFF


def sample_sum(utc_ns: int, stream_id: int, power: bytes, register: bytes | None) -> int:
    """Return the checksum of what a sample says of energy: its time, its stream, its packed power and register.

    What compaction takes away later, and what only explains the sample, is not covered.
    """
    crc = zlib.crc32(power, zlib.crc32(b"%d %d" % (utc_ns, stream_id)))
    return crc ^ _WITHOUT_REGISTER if register is None else zlib.crc32(register, crc)


EXTRA_QUANTITIES = ("voltage_v", "current_a", "power_factor", "reactive_var")


def pack_extra(frame: Frame) -> bytes | None:
    """Return one byte of flags (bit i: quantity i of V, A, PF, VAR is there) and the quantities as float32."""
    flags, columns = 0, b""
    for bit, name in enumerate(EXTRA_QUANTITIES):
        values: tuple[float, ...] | None = getattr(frame, name)
        if values is not None:
            flags |= 1 << bit
            columns += struct.pack(f"<{len(values)}f", *values)
    return bytes([flags]) + columns if flags else None


def unpack_extra(blob: bytes | None, channels: int) -> dict[str, tuple[float, ...]]:
    """Return the quantities that `pack_extra` packed, by name."""
    if not blob:
        return {}
    names = [name for bit, name in enumerate(EXTRA_QUANTITIES) if blob[0] & (1 << bit)]
    width = 4 * channels
    return {name: struct.unpack_from(f"<{channels}f", blob, 1 + index * width) for index, name in enumerate(names)}
