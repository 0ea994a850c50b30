"""`python -m orchestrator.local.supervisor --out DIR --demo FILE`: starts the lab's processes and keeps them alive.

A process that dies is started again, with capped back-off, as systemd does on real machines. On SIGTERM or SIGINT all
are stopped in reverse order. If the supervisor itself is killed, the kernel sends its children SIGTERM.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from orchestrator.local.layout import LocalLab, Part, load_demo
from shared.files.atomic import write_file
from shared.kernel.errors import EpiError
from shared.service.daemon import LASTING
from shared.service.die_with_parent import die_with_parent
from shared.service.logs import configure_logging

log = logging.getLogger(__name__)

_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_STABLE_S = 30.0
_STOP_TIMEOUT_S = 10.0


class Supervisor:
    """Keeps the parts of one lab running."""

    def __init__(self, lab: LocalLab, parts: list[Part]) -> None:
        self._lab = lab
        self._parts = parts
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Start everything, keep it alive until told to stop, stop it in reverse order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        stops = [asyncio.Event() for _ in self._parts]
        keepers = [asyncio.create_task(self._keep(part, stop)) for part, stop in zip(self._parts, stops, strict=True)]
        await self._stopping.wait()
        for keeper, stop in zip(reversed(keepers), reversed(stops), strict=True):
            stop.set()
            await keeper

    async def _keep(self, part: Part, stop: asyncio.Event) -> None:
        failures = 0
        while not stop.is_set():
            started = asyncio.get_running_loop().time()
            try:
                process = await self._start(part)
            except (OSError, subprocess.SubprocessError) as error:  # no room for a log, no process left
                log.error("%s cannot be started: %s; again in %s s", part.name, error, _BACKOFF_S[-1])
                await _pause(stop, _BACKOFF_S[-1])
                continue
            ended = asyncio.create_task(process.wait())
            asked = asyncio.create_task(stop.wait())
            await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await _stop(process)
            asked.cancel()
            code = await ended
            if stop.is_set():
                return
            lasted_s = asyncio.get_running_loop().time() - started
            failures = 0 if lasted_s > _STABLE_S else failures + 1
            delay_s = _BACKOFF_S[-1 if code in LASTING else min(failures, len(_BACKOFF_S) - 1)]
            log.warning("%s ended with %s after %.1f s; again in %s s", part.name, code, lasted_s, delay_s)
            await _pause(stop, delay_s)

    async def _start(self, part: Part) -> asyncio.subprocess.Process:
        output = (self._lab.log_dir / f"{part.name}.log").open("ab")
        try:
            # A session of its own: Ctrl-C in the terminal reaches the supervisor only, which stops the parts in order.
            return await asyncio.create_subprocess_exec(
                *part.prefix, sys.executable, *part.command, stdin=asyncio.subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True, preexec_fn=partial(die_with_parent, signal.SIGTERM, os.getpid()),
            )  # fmt: skip
        finally:
            output.close()


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def main() -> int:
    """Supervise until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--demo", type=Path, required=True)
    arguments = parser.parse_args()
    handler = configure_logging("info")
    try:
        lab = LocalLab(arguments.out.resolve())
        demo = load_demo(arguments.demo)
        write_file(lab.pid_file, f"{os.getpid()}\n", durable=False)
        try:
            asyncio.run(Supervisor(lab, lab.parts(demo)).run())
        finally:
            lab.pid_file.unlink(missing_ok=True)
    except EpiError as error:
        handler.say(logging.ERROR, f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
