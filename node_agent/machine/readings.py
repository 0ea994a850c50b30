"""Parsers of what Raspberry Pi OS, the kernel and chrony say; pure text in, values out, None where nothing is said.

Not here: running the programs and reading the files (host).
"""

import re

_ARM_CORES = {
    ("0x41", "0xd03"): "ARM Cortex-A53",
    ("0x41", "0xd08"): "ARM Cortex-A72",
    ("0x41", "0xd0b"): "ARM Cortex-A76",
}
# `vcgencmd get_throttled` in the Raspberry Pi documentation: bits 0..3 now, the same 16 higher since boot.
_THROTTLED_BITS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
_RAIL = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=([0-9.]+)[AV]\s*$", re.MULTILINE)


def throttled_names(bits: int, *, since_boot: bool = False) -> tuple[str, ...]:
    """Return what the bits of `get_throttled` say, now or since boot."""
    return tuple(name for bit, name in enumerate(_THROTTLED_BITS) if bits >> (bit + 16 * since_boot) & 1)


def parse_pmic(text: str) -> tuple[float | None, float | None]:
    """Return (power of all rails in W, input voltage in V) from `vcgencmd pmic_read_adc`.

    Current and voltage of a rail are separate lines joined by name; their numbers in brackets differ. EXT5V and BATT
    have a voltage only. The sum leaves out what does not pass the PMIC's rails: a cross-check, never the meter.
    """
    rails: dict[str, dict[str, float]] = {}
    for name, kind, value in _RAIL.findall(text):
        rails.setdefault(name, {})[kind] = float(value)
    powers = [rail["A"] * rail["V"] for rail in rails.values() if len(rail) == 2]
    return (sum(powers) if powers else None), rails.get("EXT5V", {}).get("V")


def parse_cpu_times(proc_stat: str) -> tuple[int, int] | None:
    """Return (busy, total) ticks of all CPUs from the first line of /proc/stat; waiting for disks counts as idle."""
    fields = proc_stat.split("\n", 1)[0].split()
    if len(fields) < 6 or fields[0] != "cpu":
        return None
    ticks = [int(field) for field in fields[1:9]]  # guest times are contained in user time
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def parse_governors(text: str) -> tuple[str, ...]:
    """Return the governors that scaling_available_governors lists."""
    return tuple(text.split())


def parse_throttled(text: str) -> int | None:
    """Return the bits of `vcgencmd get_throttled` ("throttled=0x50000"): 0..3 now, 16..19 since boot."""
    match = re.search(r"throttled=0x([0-9a-fA-F]+)", text)
    return int(match.group(1), 16) if match else None


def parse_chrony_offset(text: str) -> float | None:
    """Return this host's clock minus true time in seconds from `chronyc -c tracking`, None if not synchronised.

    Fields (chronyc(1), report "tracking" as CSV): reference id, name, stratum, reference time, current correction,
    last offset, RMS offset, ..., leap status. A positive correction means that the local clock is slow of true time.
    """
    fields = text.strip().split(",")
    if len(fields) < 14 or fields[13] == "Not synchronised":
        return None
    try:
        return -float(fields[4])
    except ValueError:
        return None


def parse_cpu_model(cpuinfo: str) -> str | None:
    """Return the processor's name from /proc/cpuinfo: its name on x86, implementer and part on ARM."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    found = {key.strip(): value.strip() for key, _, value in lines if value}
    if "model name" in found:
        return found["model name"]
    key = (found.get("CPU implementer", ""), found.get("CPU part", ""))
    return _ARM_CORES.get(key) or (f"ARM implementer {key[0]} part {key[1]}" if key[0] else None)
