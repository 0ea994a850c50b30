"""Build the llama.cpp engine once for this machine and keep the wheel outside the tree (standard library only).

`python shared/llama/engine_wheel.py` prints the path of the wheel, building it first if the cache has none: 5 to 15
minutes on two cores, about an hour on a Raspberry Pi 5. No published wheel has RPC, quantisation and the eval callback
for both x86-64 and aarch64, so llama-cpp-python's own source package, known by its hash, is built with RPC switched on,
by tools whose versions and hashes are known too (requirements/engine.txt), in an environment of their own. The code is
compiled for the very CPU it runs on, so the cache's key holds the CPU's features as well as version and options.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
SOURCE_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
"""Of the source package as it was published."""
CMAKE_ARGS = "-DGGML_RPC=ON"
_NEEDED = {"g++": "g++", "cmake": "cmake"}
_STEP = re.compile(r"\[(\d+)/(\d+)\]")


def cache_dir() -> Path:
    """Return where wheels are kept: `EPI_CACHE_DIR`, or the user's cache folder."""
    if chosen := os.environ.get("EPI_CACHE_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "epi-factory"


def _cpu_features() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return " ".join(sorted(found[1].split())) if found else platform.processor()


def wheel_dir() -> Path:
    """Return the folder of this machine's wheel; its name changes with version, options and CPU."""
    key = "\n".join((VERSION, CMAKE_ARGS, platform.machine(), platform.libc_ver()[1], _cpu_features()))
    return cache_dir() / "wheels" / f"{PACKAGE}-{VERSION}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def tools_file() -> Path:
    """Return the lock of what builds the wheel: beside this file where a machine of the lab builds, else the tree's."""
    beside = Path(__file__).with_name("engine.txt")
    return beside if beside.exists() else Path(__file__).resolve().parents[2] / "requirements" / "engine.txt"


def find_wheel() -> Path | None:
    """Return the cached wheel, if there is one."""
    return next(iter(sorted(wheel_dir().glob("*.whl"))), None)


def build_wheel() -> Path:
    """Build the wheel, showing progress on stderr, and put it into the cache in one step.

    Raises:
        SystemExit: a tool is missing or the build failed; the message says what to do.
    """
    missing = [package for tool, package in _NEEDED.items() if shutil.which(tool) is None]
    if missing:
        sys.exit(
            f"error: cannot build the engine: {', '.join(missing)} missing\n"
            f"  do:    sudo apt-get install -y {' '.join(missing)}"
        )
    target = wheel_dir()
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"Building {PACKAGE} {VERSION} with RPC, once for this machine (5 to 15 minutes).", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as scratch:
        log = target.parent / "build.log"
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SOURCE_SHA256}\n")
        tools = Path(scratch) / "tools"
        pip = [str(tools / "bin" / "python"), "-m", "pip"]
        commands = [
            [sys.executable, "-m", "venv", str(tools)],
            [*pip, "install", "--require-hashes", "--only-binary", ":all:", "-r", str(tools_file())],
            # Without isolation: pip would fetch the newest tools, whatever they are by then. Without its cache: pip
            # would take a wheel for this one that was built with other options, or for another CPU.
            [
                *pip, "wheel", "-v", "--no-cache-dir", "--no-deps", "--no-build-isolation", "--no-binary", PACKAGE,
                "--wheel-dir", scratch, "--require-hashes", "-r", str(wanted),
            ],
        ]  # fmt: skip
        code = _run_with_progress(commands, tools / "bin", log)
        if code != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            sys.exit(f"error: the engine's build failed (exit code {code})\n{tail}\n  do:    see {log}")
        # A rename of the whole folder: a killed build leaves no half wheel behind.
        staged = Path(tempfile.mkdtemp(dir=target.parent, prefix="staged-"))
        for built in Path(scratch).glob("*.whl"):
            shutil.move(built, staged / built.name)
        if target.exists():
            shutil.rmtree(target)
        staged.rename(target)
    wheel = find_wheel()
    if wheel is None:
        sys.exit(f"error: the build left no wheel\n  do:    see {log}")
    return wheel


def _run_with_progress(commands: list[list[str]], tools: Path, log: Path) -> int:
    """Run commands until one fails, their output into `log`; show the compiler's progress; return the last's exit code.

    On a terminal the progress is live, else it comes every 10 %. Programs in the folder `tools` are found first.
    """
    environment = os.environ | {
        "CMAKE_ARGS": f"{os.environ.get('CMAKE_ARGS', '')} {CMAKE_ARGS}".strip(),
        "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    started = time.monotonic()
    code = 0
    with log.open("w") as out:
        for command in commands:
            code = code or _run(command, environment, out, started)
    return code


def _run(command: list[str], environment: dict[str, str], out: TextIO, started: float) -> int:
    live = sys.stderr.isatty()
    shown = -1
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            out.write(line)
            step = _STEP.search(line)
            if step is None:
                continue
            percent = 100 * int(step[1]) // max(int(step[2]), 1)
            mark = percent if live else percent // 10
            if mark != shown:
                shown = mark
                minutes, seconds = divmod(int(time.monotonic() - started), 60)
                text = f"  engine {step[0]} {percent} %, {minutes}:{seconds:02d}"
                print(text, end="\r" if live else "\n", file=sys.stderr, flush=True)
        return process.wait()


if __name__ == "__main__":
    print(find_wheel() or build_wheel())
