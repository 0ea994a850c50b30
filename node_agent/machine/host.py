"""What the machine says about itself: board, CPU, memory, governor, temperature, throttling, clock.

Each reader returns None when the machine does not say; nothing is guessed. Not here: parsing (readings), anything that
changes the machine (governor), waiting (steady).
"""

import asyncio
import os
import platform
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil
from pydantic import ValidationError

from node_agent.machine.activity import note
from node_agent.machine.readings import (
    parse_chrony_offset,
    parse_cpu_model,
    parse_cpu_times,
    parse_governors,
    parse_pmic,
    parse_throttled,
    throttled_names,
)
from node_agent.settings import NodeSettings
from shared.kernel.build import software_build
from shared.kernel.clock import utc_ns
from shared.llama.build import EngineBuild
from shared.service.child_output import outputs
from shared.wire.node_jobs.host import DiskSpace, NodeFacts

_COMMAND_S = 5.0
_ENGINE_BUILD_S = 120.0
_CPUFREQ = Path("/sys/devices/system/cpu/cpufreq/policy0")
_THERMAL = Path("/sys/class/thermal/thermal_zone0/temp")
_SUPPLY = Path("/proc/device-tree/chosen/power/max_current")
_BOARD = (Path("/proc/device-tree/model"), Path("/sys/devices/virtual/dmi/id/product_name"))


async def ask(*argv: str, timeout_s: float = _COMMAND_S) -> str | None:
    """Return what a program prints, None when it is missing, fails or takes too long."""
    if shutil.which(argv[0]) is None:
        return None
    note(f"ran {' '.join(argv)}")
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        output, _ = await asyncio.wait_for(outputs(process), timeout_s)
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
    from shared.llama.model import LLAMA_BUILD

    return LLAMA_BUILD if find_spec("llama_cpp") is not None else None


async def find_engine() -> EngineBuild | None:
    """Ask the installed llama.cpp what it is, in a process of its own; None when there is none or it does not load."""
    if find_spec("llama_cpp") is None:
        return None
    said = await ask(sys.executable, "-m", "shared.llama.build", timeout_s=_ENGINE_BUILD_S)
    try:
        return None if said is None else EngineBuild.model_validate_json(said)
    except ValidationError:
        return None


def cpu_times() -> tuple[int, int] | None:
    """Return (busy, total) ticks of all CPUs since boot."""
    return parse_cpu_times(_text(Path("/proc/stat")) or "")


def temperature_c() -> float | None:
    """Return the temperature of the processor."""
    return _number(_THERMAL, 1e-3)


async def pmic() -> tuple[float | None, float | None]:
    """Return (power of the PMIC's rails in W, input voltage in V), None where there is no PMIC."""
    text = await ask("vcgencmd", "pmic_read_adc")
    return (None, None) if text is None else parse_pmic(text)


def supply_max_ma() -> int | None:
    """Return the current the supply negotiated, from the firmware's device tree (Pi 5)."""
    try:
        data = _SUPPLY.read_bytes()
    except OSError:
        return None
    return int.from_bytes(data[:4], "big") or None


def memory_limit_bytes(group: str | None = None, root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the least memory that this process's control group and those above it allow, None without a limit.

    Engines and workers run in the agent's group, so that its limit is theirs. Version 2 of control groups.
    """
    if group is None:
        lines = (_text(Path("/proc/self/cgroup")) or "").splitlines()
        group = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if group is None:
        return None
    place = root / group
    limits = [_number(folder / "memory.max", 1.0) for folder in (place, *place.parents) if folder.is_relative_to(root)]
    return min((int(limit) for limit in limits if limit is not None), default=None)


def disks() -> tuple[DiskSpace, ...]:
    """Return the mounted file systems on real devices."""
    found = []
    for partition in psutil.disk_partitions(all=False):
        try:
            usage = shutil.disk_usage(partition.mountpoint)
        except OSError:
            continue
        found.append(
            DiskSpace(
                mount=partition.mountpoint, device=partition.device, total_bytes=usage.total, free_bytes=usage.free
            )
        )
    return tuple(found)


async def read_facts(settings: NodeSettings, engine: EngineBuild | None = None) -> NodeFacts:
    """Ask the machine everything once; `engine` is what `find_engine` found."""
    throttled, tracking, (power_w, supply_v) = await asyncio.gather(
        ask("vcgencmd", "get_throttled"), ask("chronyc", "-c", "tracking"), pmic()
    )
    bits = None if throttled is None else parse_throttled(throttled)
    return NodeFacts(
        name=settings.name,
        board=next((text for text in map(_text, _BOARD) if text), None),
        cpu_model=parse_cpu_model(_text(Path("/proc/cpuinfo")) or ""),
        n_cpus=os.cpu_count() or 1,
        memory_bytes=int(psutil.virtual_memory().total),
        memory_limit_bytes=memory_limit_bytes(),
        reserved_memory_bytes=settings.reserved_memory_bytes,
        kernel=platform.release(),
        python=platform.python_version(),
        governor=_text(_CPUFREQ / "scaling_governor"),
        governors=parse_governors(_text(_CPUFREQ / "scaling_available_governors") or ""),
        cpu_mhz=_number(_CPUFREQ / "scaling_cur_freq", 1e-3),
        cpu_max_mhz=_number(_CPUFREQ / "cpuinfo_max_freq", 1e-3),
        temperature_c=temperature_c(),
        throttled_bits=bits,
        throttled_now=None if bits is None else throttled_names(bits),
        throttled_since_boot=None if bits is None else throttled_names(bits, since_boot=True),
        supply_max_ma=supply_max_ma(),
        pmic_power_w=power_w,
        supply_v=supply_v,
        load_1min=os.getloadavg()[0],
        clock_offset_s=None if tracking is None else parse_chrony_offset(tracking),
        engine_build=engine_build(),
        software=software_build(),
        engine=engine,
        disk_free_bytes=shutil.disk_usage(settings.state_dir).free,
        disks=disks(),
        utc_ns=utc_ns(),
    )
