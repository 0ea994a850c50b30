"""Parsers of what machines say, on text in the format of a Raspberry Pi 5, a Pi 4 and x86 machines."""

import pytest

from node_agent.machine.readings import (
    parse_chrony_offset,
    parse_cpu_model,
    parse_cpu_times,
    parse_governors,
    parse_pmic,
    parse_throttled,
    throttled_names,
)

# As a Pi 5's firmware prints it: right-aligned names, the number in brackets is the ADC channel, not the rail.
PMIC = """\
 3V7_WL_SW_A current(0)=0.01000000A
   3V3_SYS_A current(1)=0.10000000A
  VDD_CORE_A current(7)=2.00000000A
   3V3_DAC_A current(17)=0.00040000A
 3V7_WL_SW_V volt(8)=3.70000000V
   3V3_SYS_V volt(9)=3.30000000V
  VDD_CORE_V volt(15)=0.90000000V
   3V3_DAC_V volt(20)=3.30000000V
     EXT5V_V volt(24)=5.10000000V
      BATT_V volt(25)=0.00000000V
"""


def test_pmic_joins_rails_by_name() -> None:
    power_w, supply_v = parse_pmic(PMIC)
    assert power_w == pytest.approx(0.01 * 3.7 + 0.1 * 3.3 + 2.0 * 0.9 + 0.0004 * 3.3)
    assert supply_v == 5.1


@pytest.mark.parametrize("text", ["", 'error=1 error_msg="Command not registered"\n', " EXT5V_V volt(24)=x\n"])
def test_no_pmic_is_unknown(text: str) -> None:
    assert parse_pmic(text) == (None, None)


def test_a_rail_without_its_voltage_is_not_guessed() -> None:
    assert parse_pmic("  VDD_CORE_A current(7)=2.00000000A\n     EXT5V_V volt(24)=5.00000000V\n") == (None, 5.0)


@pytest.mark.parametrize(
    ("text", "bits", "now", "since_boot"),
    [
        ("throttled=0x0\n", 0, (), ()),
        ("throttled=0x50000\n", 0x50000, (), ("under-voltage", "throttled")),
        ("throttled=0x50005\n", 0x50005, ("under-voltage", "throttled"), ("under-voltage", "throttled")),
        ("throttled=0xe0008\n", 0xE0008, ("soft temperature limit",),
         ("frequency capped", "throttled", "soft temperature limit")),
    ],
)  # fmt: skip
def test_throttled(text: str, bits: int, now: tuple[str, ...], since_boot: tuple[str, ...]) -> None:
    assert parse_throttled(text) == bits
    assert throttled_names(bits) == now
    assert throttled_names(bits, since_boot=True) == since_boot


def test_throttled_of_another_machine_is_unknown() -> None:
    assert parse_throttled("VCHI initialization failed\n") is None


def test_chrony_says_slow_as_positive_and_we_say_host_minus_truth() -> None:
    line = (
        "A29FC87B,time.example.org,3,1700000000.123456789,0.000021340,0.000013,0.000045,"
        "-12.3,0.001,0.05,0.01,0.002,64.5,Normal\n"
    )
    assert parse_chrony_offset(line) == pytest.approx(-21.34e-6)
    fast = line.replace("0.000021340", "-0.000500000")
    assert parse_chrony_offset(fast) == pytest.approx(500e-6)


@pytest.mark.parametrize(
    "text",
    [
        "", "506 Cannot talk to daemon\n",
        "00000000,,0,0.000000000,0.000000000,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised\n",
        "A,b,3,1.0,word,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Normal\n",
    ],
)  # fmt: skip
def test_an_unsynchronised_clock_is_unknown(text: str) -> None:
    assert parse_chrony_offset(text) is None


def test_cpu_names() -> None:
    pi = "processor\t: 0\nBogoMIPS\t: 108.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\nCPU revision\t: 1\n"
    assert parse_cpu_model(pi) == "ARM Cortex-A76"
    assert parse_cpu_model(pi.replace("0xd0b", "0xd4f")) == "ARM implementer 0x41 part 0xd4f"
    assert parse_cpu_model("processor\t: 0\nmodel name\t: AMD EPYC 7B13\nflags\t\t: fpu\n") == "AMD EPYC 7B13"
    assert parse_cpu_model("") is None


def test_cpu_times() -> None:
    assert parse_cpu_times("cpu  100 5 20 800 50 0 3 2 0 0\ncpu0 1 1 1 1\n") == (130, 980)
    assert parse_cpu_times("intr 1\n") is None


def test_governors() -> None:
    assert parse_governors("conservative ondemand userspace powersave performance schedutil \n")[-2:] == (
        "performance", "schedutil",
    )  # fmt: skip
