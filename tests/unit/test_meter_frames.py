"""Protocol v1 and the dialects: what is read, what is refused, and that nothing crashes."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_bridge.protocol.frames import (
    MAX_LINE_BYTES,
    Frame,
    Hello,
    Malformed,
    check_budget,
    checksum,
    format_frame,
    format_hello,
    frame_budget_bytes,
)
from meter_bridge.protocol.lines import LineBuffer
from meter_bridge.protocol.parser import LineParser
from shared.kernel.errors import ConfigurationError
from shared.wire.meter_api import Ambient
from tests.support.meter_fuzz import run_fuzzed

watts = st.one_of(st.just(math.nan), st.integers(-200_000, 200_000).map(lambda mw: mw / 1000))


def same(a: Frame, b: Frame) -> bool:
    return repr(a) == repr(b)


@given(
    power=st.lists(watts, min_size=1, max_size=8),
    seq=st.integers(0, 2**32 - 1),
    ms=st.integers(0, 2**32 - 1),
    crc=st.booleans(),
)
def test_what_is_sent_is_what_is_read(power: list[float], seq: int, ms: int, crc: bool) -> None:
    frame = Frame(tuple(power), seq=seq, device_ms=ms, voltage_v=(230.25,) * len(power), frequency_hz=49.98)
    (read,) = LineParser(len(power)).parse(format_frame(frame, crc=crc).rstrip(b"\n"))
    assert isinstance(read, Frame)
    assert same(read, frame)


def test_hello_is_read_back() -> None:
    hello = Hello("epi-meter", "ac_meter", 4, 50.0, firmware="1.2", serial="A7", calibration="c3", boot=99, crc=True)
    assert LineParser(4).parse(format_hello(hello).rstrip(b"\n")) == [hello]


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ('"amb":21.5,"rh":40', Ambient(temperature_c=21.5, humidity_percent=40)),
        ('"amb":-3', Ambient(temperature_c=-3)),
        ('"amb":null,"rh":null', None),
        ('"amb":999', None),
        ('"amb":"warm"', None),
    ],
)
def test_the_room_is_read_where_a_sensor_tells_it(said: str, read: Ambient | None) -> None:
    """A sensor that is out of order must not cost the hello, and what it says is not what the meter is."""
    line = f'{{"epi":"1.1","dev":"m","kind":"ac_meter","ch":4,"rate":10,{said}}}'
    (hello,) = LineParser(4).parse(line.encode())
    assert isinstance(hello, Hello) and hello.ambient == read
    assert hello == Hello("m", "ac_meter", 4, 10.0, version="1.1"), "another temperature is no other meter"
    (again,) = LineParser(4).parse(format_hello(hello).rstrip())
    assert isinstance(again, Hello) and again.ambient == read


def test_checksum_is_crc16_ccitt_false() -> None:
    # The check value of the CRC catalogue for the nine digits.
    assert checksum(b"123456789") == 0x29B1


@pytest.mark.parametrize(
    ("line", "power"),
    [
        (b'{"W":[1,2]}', (1.0, 2.0)),
        (b'{"power":[1.5,null]}', (1.5, math.nan)),
        (b'{"P":[1,2],"Vrms":[230,231],"Irms":[0.1,0.2]}', (1.0, 2.0)),
        (b'{"P1":3,"P2":4,"unknown":"x"}', (3.0, 4.0)),
        (b"MSG:17,Vrms:231.9,P1:5.1,P2:6.2,E1:12,T1:300.00", (5.1, 6.2)),
        (b"P1=5.1,P2=6.2", (5.1, 6.2)),
        (b"10 5.1 6.2", (5.1, 6.2)),
        (b'\x00\x00{"W":[1,2]}\r', (1.0, 2.0)),
    ],
)
def test_dialects(line: bytes, power: tuple[float, ...]) -> None:
    (frame,) = LineParser(2).parse(line)
    assert isinstance(frame, Frame)
    assert repr(frame.power_w) == repr(power)


@pytest.mark.parametrize(
    "line",
    [
        b'{"W":[1]}', b'{"W":[1,2,3]}', b'{"W":5}', b'{"V":[1,2]}', b'{"W":[1,NaN]}', b'{"W":[1,1e999]}',
        b'{"W":[1,true]}', b'{"W":[1,"2"]}', b'{"W":[1,2],"P":[1,2]}', b'{"W":[1,2],"W":[1,2]}', b'{"W":[1,2],"s":-1}',
        b'{"W":[1,2],"s":1.5}', b'{"W":[1,2],"t":4294967296}', b'{"W":[1,2e9]}', b"[1,2]", b"{" * 1000, b"5", b"10 1",
        b"10 1 nan", b"P1:inf,P2:1", b"\xff\xfe\xfd", b'{"epi":"2.0","kind":"ac_meter","ch":2,"rate":1}',
        b'{"epi":"1.0","kind":"toaster","ch":2,"rate":1}', b'{"epi":"1.0","kind":"ac_meter","ch":3,"rate":1}',
        b'{"W":[1,' + b"9" * 900 + b"]}", b'{"P0":1,"P1":2}', b'{"W":[1,2]}*0000', b'{"W":[1,2]}*zzzz',
    ],
)  # fmt: skip
def test_refused(line: bytes) -> None:
    items = LineParser(2).parse(line)
    assert len(items) == 1
    assert isinstance(items[0], Malformed)
    assert items[0].reason


def test_after_a_hello_damage_cannot_pass_as_a_dialect() -> None:
    parser = LineParser(2)
    parser.parse(format_hello(Hello("m", "ac_meter", 2, 10.0, crc=True)).rstrip(b"\n"))
    for line in (b"10 5.1 6.2", b"P1:1,P2:2", b'{"W":[1,2]}'):
        (item,) = parser.parse(line)
        assert isinstance(item, Malformed)


def test_a_lost_newline_costs_only_the_damaged_line() -> None:
    frame = Frame((1.0, 2.0), seq=1, device_ms=5)
    line = format_frame(frame, crc=True).rstrip(b"\n")
    items = LineParser(2).parse(line[:20] + line)
    assert isinstance(items[0], Malformed)
    assert items[1:] == [frame]


@given(st.binary(max_size=300))
@settings(max_examples=500)
def test_any_bytes_are_survived(data: bytes) -> None:
    for item in LineParser(2).parse(data):
        assert isinstance(item, Frame | Hello | Malformed)


@given(st.lists(st.binary(max_size=60).filter(lambda line: b"\n" not in line), max_size=20), st.data())
def test_lines_are_cut_the_same_however_the_bytes_arrive(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    buffer, got = LineBuffer(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += buffer.feed(stream[:size])
        stream = stream[size:]
    assert got == lines


def test_line_buffer_is_bounded() -> None:
    buffer = LineBuffer()
    for _ in range(1000):
        assert buffer.feed(b"x" * 1000) == []
        assert len(buffer._rest) <= MAX_LINE_BYTES
    assert buffer.feed(b"tail\nwhole\n") == [b"whole"]
    assert buffer.overflows == 1


def test_budget() -> None:
    assert frame_budget_bytes(50, 115_200) == 230
    four = Frame((99.999,) * 4, 2**32 - 1, 2**32 - 1, (230.25,) * 4, (0.999,) * 4, (0.999,) * 4, (99.99,) * 4)
    line, hello = format_frame(four, crc=True), format_hello(Hello("epi-meter", "ac_meter", 4, 50.0, crc=True))
    assert len(line) <= 200
    check_budget(line, hello, 50, 115_200)
    with pytest.raises(ConfigurationError, match="does not fit"):
        check_budget(line, hello, 50, 57_600)


def test_the_examples_of_the_protocol_document_are_valid() -> None:
    text = (Path(__file__).parents[2] / "docs" / "meter-protocol.md").read_bytes()
    lines = [line for line in text.splitlines() if line.startswith((b'{"epi"', b'{"s"'))]
    hello, frame = [LineParser(4).parse(line)[0] for line in lines]
    assert isinstance(hello, Hello)
    assert hello.serial == "A0017"
    assert isinstance(frame, Frame)
    assert math.isnan(frame.power_w[3])


def test_fuzzed_lines_lose_no_valid_frame() -> None:
    valid, kept, wrong = run_fuzzed(20_000, 1)
    assert valid > 6_000
    assert kept == valid
    # A line damaged at random passes a 16-bit CRC once in 65,536 times; single flipped bits never do.
    assert wrong <= 1
