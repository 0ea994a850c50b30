"""What the machine says about itself: board, CPU, memory, governor, temperature, throttling, clock.

Each reader returns None when the machine does not say; nothing is guessed. The parsers take text, so that they are
tested on recorded output of real machines. Not here: anything that changes the machine.
"""

import asyncio
import os
import platform
import re
import shutil
from pathlib import Path

import psutil

from node_agent.settings import NodeSettings
from shared.clock import utc_ns
from shared.node_jobs import NodeFacts

_COMMAND_S = 5.0
_CPUFREQ = Path("/sys/devices/system/cpu/cpufreq/policy0")
_THERMAL = Path("/sys/class/thermal/thermal_zone0/temp")
_ARM_CORES = {
    ("0x41", "0xd03"): "ARM Cortex-A53",
    ("0x41", "0xd08"): "ARM Cortex-A72",
    ("0x41", "0xd0b"): "ARM Cortex-A76",
}
_BOARD = (Path("/proc/device-tree/model"), Path("/sys/devices/virtual/dmi/id/product_name"))


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


async def ask(*argv: str) -> str | None:
    """Return what a program prints, None when it is missing, fails or takes too long."""
    if shutil.which(argv[0]) is None:
        return None
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _COMMAND_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    return output.decode("utf-8", "replace") if process.returncode == 0 else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _number(path: Path, scale: float) -> float | None:
    text = _text(path)
    try:
        return None if text is None else float(text) * scale
    except ValueError:
        return None


def engine_build() -> str | None:
    """Return the build of llama.cpp installed here, None when there is none."""
    from importlib.util import find_spec

    from shared.llama import LLAMA_BUILD

    return LLAMA_BUILD if find_spec("llama_cpp") is not None else None


async def read_facts(settings: NodeSettings) -> NodeFacts:
    """Ask the machine everything once."""
    throttled, tracking = await asyncio.gather(ask("vcgencmd", "get_throttled"), ask("chronyc", "-c", "tracking"))
    return NodeFacts(
        name=settings.name,
        board=next((text for text in map(_text, _BOARD) if text), None),
        cpu_model=parse_cpu_model(_text(Path("/proc/cpuinfo")) or ""),
        n_cpus=os.cpu_count() or 1,
        memory_bytes=int(psutil.virtual_memory().total),
        kernel=platform.release(),
        python=platform.python_version(),
        governor=_text(_CPUFREQ / "scaling_governor"),
        cpu_mhz=_number(_CPUFREQ / "scaling_cur_freq", 1e-3),
        temperature_c=_number(_THERMAL, 1e-3),
        throttled_bits=None if throttled is None else parse_throttled(throttled),
        load_1min=os.getloadavg()[0],
        clock_offset_s=None if tracking is None else parse_chrony_offset(tracking),
        engine_build=engine_build(),
        disk_free_bytes=shutil.disk_usage(settings.state_dir).free,
        utc_ns=utc_ns(),
    )
