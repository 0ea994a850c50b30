"""Meters, logs and settings that say impossible numbers: refused by field, value and limits, whatever the source."""

import importlib
import math
import pkgutil
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annotated_types
import pytest
from pydantic import BaseModel, ValidationError

import meter_bridge.sources
import node_agent.settings
import orchestrator.settings
import surgeon.settings
from meter_bridge.cli.calibrate import read_points
from meter_bridge.instrument.budget import AccuracySettings
from meter_bridge.protocol.frames import Frame, Hello, Malformed
from meter_bridge.protocol.limits import LIMITS, fault_of
from meter_bridge.protocol.parser import LineParser
from meter_bridge.settings import BridgeSettings
from meter_bridge.sources.csv import csv_parser
from meter_bridge.sources.emulator.loads import parse_schedule
from meter_bridge.sources.plugs import power_of
from meter_bridge.sources.pmic import rails_w
from meter_bridge.sources.ptdaemon import parse_ptdaemon
from orchestrator.domain.campaign.rates import Rates
from orchestrator.domain.campaign.spec import CampaignSpec
from shared.kernel.errors import ConfigurationError, DataError
from shared.kernel.numbers import decimal

ODD = ("1e308", "1e999", "-1e308", "nan", "inf", "1_000", "\u0661\u0662", " ", "1 2", "0x10", "1e-", "", "+-1", "12W")


def refused(line: bytes, channels: int = 1) -> str:
    (item,) = LineParser(channels).parse(line)
    assert isinstance(item, Malformed), item
    return item.reason


@pytest.mark.parametrize("field", ["W", "V", "A", "PF", "VAR", "Wh", "Hz"])
@pytest.mark.parametrize("value", ["1e308", "-1e308", "1e12", "-1e12", "9" * 400])
def test_a_frame_beyond_the_limits_names_field_value_and_limits(field: str, value: str) -> None:
    body = f'"{field}":[{value}]' if field != "Hz" else f'"Hz":{value}'
    power = "" if field == "W" else '"W":[5],'
    reason = refused(f"{{{power}{body}}}".encode())
    assert field in reason
    if len(value) < 300:
        low, high = LIMITS[field]
        assert f"{field} is " in reason and f"{low:.9g}..{high:.9g}" in reason


@pytest.mark.parametrize("rate", ["1e-300", "0", "-1", "1e9", "0.009", "1001"])
def test_a_hello_cannot_switch_staleness_off(rate: str) -> None:
    reason = refused(f'{{"epi":"1.0","dev":"x","kind":"ac_meter","ch":1,"rate":{rate}}}'.encode())
    assert reason == f"rate is {float(rate):g}, not in 0.01..1000"


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("line", ["MSG:7,Vrms:231.2,P1:{}", "P1:5,Vrms:{}", "7 {}", "P1={}"])
def test_dialects_have_the_same_limits(line: str, value: str) -> None:
    refused(line.format(value).encode())


def test_what_meters_do_say_is_taken() -> None:
    parser = LineParser(2)
    (hello,) = parser.parse(b'{"epi":"1.0","dev":"x","kind":"ac_meter","ch":2,"rate":0.01}')
    (frame,) = parser.parse(
        b'{"W":[-3.5,99999],"V":[231.2,0],"A":[0.01,null],"PF":[-1,1.02],"VAR":[5,6],"Wh":[1e8,2],"Hz":50}'
    )
    assert isinstance(hello, Hello) and isinstance(frame, Frame)
    assert fault_of(hello) is None and fault_of(frame) is None


@pytest.mark.parametrize("value", ODD)
def test_logs_have_the_same_limits(value: str) -> None:
    parse = csv_parser("t", ("w",))
    parse("t,w")
    if value:
        with pytest.raises(ValueError, match=r"isoformat|is not a number|beyond"):
            parse(f"{value},5")
    else:
        assert math.isnan(typing.cast(Any, parse("1,"))[1][0])  # a missing value
    ptdaemon = f"Time,01-31-2026 12:00:00.000,Watts,{value},Volts,231,Amps,1,PF,0.9,Mark,x"
    for read in (lambda: parse(f"1,{value}"), lambda: parse_ptdaemon(ptdaemon)):
        try:
            parsed = read()
        except ValueError as error:
            assert "is not a number" in str(error)
        else:  # a number that no meter means: the frame is refused where all sources pass
            watts = typing.cast(Any, parsed)[1]
            assert fault_of(Frame(watts)) is not None or math.isnan(watts[0])


@pytest.mark.parametrize("value", [1e308, "5", "1_0", None, True, math.nan, math.inf, [], {}])
def test_plugs_have_the_same_limits(value: object) -> None:
    for dialect, answer in (
        ("shelly1", {"power": value}), ("shelly2", {"apower": value}),
        ("tasmota", {"StatusSNS": {"ENERGY": {"Power": value}}}),
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError)):
            power_of(typing.cast(Any, dialect), answer)


@pytest.mark.parametrize("volt", ["1e308", "1-2", "--", "e", "5e5"])
def test_a_power_chip_has_limits(volt: str) -> None:
    with pytest.raises(DataError):
        rails_w(f"A_A current(1)=1.0A\nA_V volt(2)={volt}V\n")


@pytest.mark.parametrize("value", ODD)
def test_calibration_points_are_plain_numbers(tmp_path: Path, value: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text(f"node,reference_w,measured_w\nnode1,10,10.1\nnode1,{value},5\n")
    with pytest.raises(DataError, match="reference_w") as caught:
        read_points(path)
    assert "line 3" in caught.value.where


@pytest.mark.parametrize("value", [one for one in ODD if one.strip()])
def test_schedules_are_plain_numbers(value: str) -> None:
    for text in (f"{value}x5", f"5x{value}"):
        with pytest.raises(ConfigurationError):
            parse_schedule(text)


@pytest.mark.parametrize("text", ODD)
def test_a_decimal_is_a_decimal(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a number|is beyond"):
        decimal(text, 1e6)
    assert decimal("-1.5e3", 1e6) == -1500 and decimal("+.5", 1) == 0.5 and decimal("7.", 10) == 7


# Settings: every number has a range.

FREE = {"parameters", "kept", "experts", "routers"}
"""A method's own parameters, and a plan's ids and matrices, which are held against the model."""


def bounds(metadata: list[Any]) -> tuple[Any, Any]:
    low: Any = None
    high: Any = None
    for one in (part for item in metadata for part in getattr(item, "metadata", [item])):
        if isinstance(one, annotated_types.Ge):
            low = one.ge
        elif isinstance(one, annotated_types.Gt):
            low = ("more than", one.gt)
        elif isinstance(one, annotated_types.Le):
            high = one.le
        elif isinstance(one, annotated_types.Lt):
            high = one.lt
    return low, high


def unbounded(kind: Any, metadata: list[Any], place: str, seen: set[type]) -> Iterator[str]:
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        inner, *more = typing.get_args(kind)
        yield from unbounded(inner, [*metadata, *more], place, seen)
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from fields_of(kind, seen)
    elif kind in (int, float):
        low, high = bounds(metadata)
        if low is None or high is None or (kind is float and low == ("more than", 0)):
            yield f"{place}: {low}..{high}"
    else:
        inherited = metadata if origin in (typing.Union, types.UnionType) else []
        for part in typing.get_args(kind):
            yield from unbounded(part, inherited, place, seen)


def fields_of(model: type[BaseModel], seen: set[type]) -> Iterator[str]:
    if model in seen:
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        if name not in FREE:
            yield from unbounded(field.annotation, list(field.metadata), f"{model.__name__}.{name}", seen)


def settings_models() -> list[type[BaseModel]]:
    modules = [node_agent.settings, surgeon.settings, orchestrator.settings]
    for one in pkgutil.iter_modules(meter_bridge.sources.__path__):
        modules.append(importlib.import_module(f"meter_bridge.sources.{one.name}"))
    own = [
        value for module in modules for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == module.__name__
    ]  # fmt: skip
    return [*own, BridgeSettings, CampaignSpec, Rates]


def test_every_number_of_every_settings_file_has_a_range() -> None:
    seen: set[type] = set()
    found = [line for model in settings_models() for line in fields_of(model, seen)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"power_factor": 1e-300}, "greater than or equal to 0.05"),
        ({"power_factor": 2}, "less than or equal to 1"),
        ({"ic_step_w": 1e308}, "less than or equal to 10"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_limit(given: dict[str, float], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AccuracySettings.model_validate(given)


def test_the_limits_are_documented_as_they_are() -> None:
    text = (Path(__file__).parents[2] / "docs/meter-protocol.md").read_text()
    found: dict[str, tuple[float, float]] = {}
    for line in text.partition("### Limits")[2].partition("### Byte budget")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0].startswith("`"):
            limits = float(cells[1]), float(cells[2])
            found |= {name.strip(" `"): limits for name in cells[0].split(",")}
    assert found == LIMITS
