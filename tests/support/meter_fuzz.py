"""Damaged meter lines, for the quick test and for the bench."""

import json
import random
from collections.abc import Iterator

from meter_bridge.protocol.frames import Frame, Hello, format_frame, format_hello
from meter_bridge.protocol.lines import LineBuffer
from meter_bridge.protocol.parser import LineParser

CHUNK_LINES = 10_000


def fuzzed(first: int, count: int, chance: random.Random) -> tuple[bytes, set[int], dict[int, float]]:
    """Return `count` lines as bytes, the numbers of the untouched frames (a third), and the power of every frame."""
    parts: list[bytes] = []
    valid: set[int] = set()
    powers: dict[int, float] = {}
    for number in range(first, first + count):
        powers[number] = chance.randrange(20_000) / 1000
        line = format_frame(Frame((powers[number],) * 4, seq=number, device_ms=number * 20), crc=True)
        kind = chance.randrange(9)
        if kind <= 2:
            valid.add(number)
        parts.append(line if kind <= 2 else _damaged(line, kind, chance))
    return b"".join(parts), valid, powers


def _damaged(line: bytes, kind: int, chance: random.Random) -> bytes:
    """Return the line cut, with a flipped bit, with bytes put in, or something else altogether."""
    spot = chance.randrange(len(line) - 1)
    if kind == 3:
        return line[:spot] + b"\n"
    if kind == 4:
        return line[:spot] + bytes([line[spot] ^ (1 << chance.randrange(8))]) + line[spot + 1 :]
    if kind == 5:
        return chance.randbytes(chance.randrange(120)) + b"\n"
    if kind == 6:
        return b'{"W":' + b"[" * chance.randrange(400) + b"\n"
    if kind == 7:
        return json.dumps({"W": [1, 2], "s": chance.choice([None, -1, "x", 1e40, [], {}])}).encode() + b"\n"
    return line[:spot] + chance.randbytes(4).replace(b"\n", b"!") + line[spot:]


def run_fuzzed(count: int, seed: int) -> tuple[int, int, int]:
    """Feed fuzzed lines in odd pieces; return (valid frames, of them kept, frames with wrong contents)."""
    chance = random.Random(seed)
    parser, buffer = LineParser(4), LineBuffer()
    parser.parse(format_hello(Hello("m", "ac_meter", 4, 50.0, crc=True)).rstrip(b"\n"))
    total, kept, wrong = 0, 0, 0
    for first in range(0, count, CHUNK_LINES):
        stream, valid, powers = fuzzed(first, min(CHUNK_LINES, count - first), chance)
        found: set[int] = set()
        for frame in _frames(stream, parser, buffer):
            number = frame.seq if frame.seq is not None else -1
            if number in powers and frame.power_w == (powers[number],) * 4:
                found.add(number)
            else:
                wrong += 1
        total, kept = total + len(valid), kept + len(valid & found)
    return total, kept, wrong


def _frames(stream: bytes, parser: LineParser, buffer: LineBuffer) -> Iterator[Frame]:
    for start in range(0, len(stream), 997):
        for line in buffer.feed(stream[start : start + 997]):
            yield from (item for item in parser.parse(line) if isinstance(item, Frame))
