"""Bringing a file by the real rsync, another file being the basis of its delta, and the bytes that crossed the net."""

import asyncio
import os
import re
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node_agent.machine.activity import note
from shared.kernel.errors import ConfigurationError, InfrastructureError
from shared.service.child_output import outputs

_TOTAL = re.compile(r"^Total bytes (sent|received): ([0-9,.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Traffic:
    """Bytes over the net, as rsync counts them."""

    sent: int
    received: int


def parse_stats(text: str) -> Traffic:
    """Return what `rsync --stats` says.

    Raises:
        InfrastructureError: it says nothing of the kind.
    """
    found = {name: int(re.sub(r"[,.]", "", value)) for name, value in _TOTAL.findall(text)}
    if set(found) != {"sent", "received"}:
        raise InfrastructureError("rsync did not say how much it moved", where=text[-200:])
    return Traffic(sent=found["sent"], received=found["received"])


async def rsync(source: str, target: Path, *, shell: str, basis: Path | None) -> Traffic:
    """Bring `source` (host:path) to `target`; an unfinished target is continued.

    With `basis`, a copy of that file is what rsync's delta begins from (on file systems that can, the copy is free).

    Raises:
        ConfigurationError: rsync is not installed.
        InfrastructureError: it failed; its own words are in the message.
    """
    if shutil.which("rsync") is None:
        raise ConfigurationError("rsync is not installed", hint="apt install rsync")
    if basis is not None and not target.exists():
        await asyncio.to_thread(shutil.copyfile, basis, target)
    argv = ["rsync", "--inplace", "--no-whole-file", "--stats", "--timeout=120", "-e", shell, source, str(target)]
    note(f"ran {' '.join(argv)}")
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"}, start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = await outputs(process)
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        await process.wait()
        raise
    if process.returncode != 0:
        last = errors.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
        raise InfrastructureError(f"rsync ended with {process.returncode}: {last[0]}", where=source)
    return parse_stats(output.decode("utf-8", "replace"))
