"""Starting, waiting for and stopping a one-machine lab."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import httpx
import tomli_w

from orchestrator.local.layout import LocalLab, Part, load_demo
from shared.files.atomic import write_file
from shared.files.last_lines import last_lines
from shared.kernel.errors import ConfigurationError, EpiError, InfrastructureError
from shared.service.endpoint import Endpoint, ask_sync

_READY_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 60.0


def find_demo(given: Path | None) -> Path:
    """Return the demo's settings file: the one given, or that of this folder, the source or the installation.

    Raises:
        ConfigurationError: there is none.
    """
    usual = (Path("demo"), Path(__file__).parents[2] / "demo", Path(sys.prefix) / "share" / "epi-factory" / "demo")
    places = [given] if given is not None else [folder / "demo.toml" for folder in usual]
    for place in places:
        if place.is_file():
            return place.resolve()
    raise ConfigurationError(
        "no demo.toml found", where=", ".join(str(place) for place in places),
        hint="a lab's release comes without the demo: run from the source folder, or give --demo FILE",
    )  # fmt: skip


def supervisor_pid(lab: LocalLab) -> int | None:
    """Return the pid of the lab's living supervisor; a stale pid file is not believed."""
    try:
        pid = int(lab.pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"orchestrator.local.supervisor" in command else None


def start(lab: LocalLab, demo_file: Path, *, die_with_parent: bool) -> subprocess.Popen[bytes]:
    """Start the lab's supervisor and return its process; with `die_with_parent` it ends when this process ends.

    Raises:
        ConfigurationError: the lab already runs, or its settings do not fit.
    """
    if (pid := supervisor_pid(lab)) is not None:
        raise ConfigurationError(
            f"a lab already runs there (pid {pid})", where=str(lab.out), hint="`epi down`, or choose another --out"
        )
    lab.prepare(load_demo(demo_file))
    _shelve_demo(lab, demo_file)
    command = ["-m", "orchestrator.local.supervisor", "--out", str(lab.out), "--demo", str(demo_file)]
    if die_with_parent:
        command = ["-m", "shared.service.die_with_parent", str(os.getpid()), *command[1:]]
    with (lab.log_dir / "supervisor.log").open("ab") as log:
        # A session of its own, so that Ctrl-C reaches only the command, which then stops the lab in order.
        return subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _shelve_demo(lab: LocalLab, demo_file: Path) -> None:
    """Let the demo's campaign be started by its name, from the bot, curl or n8n."""
    campaign = tomllib.loads(demo_file.read_text(encoding="utf-8")).get("campaign")
    if campaign is not None:
        write_file(lab.specs_dir / "demo.toml", tomli_w.dumps({"id": "demo", **campaign}))


def wait_ready(lab: LocalLab, demo_file: Path, on_wait: Callable[[str], None]) -> None:
    """Wait until every part answers.

    Raises:
        InfrastructureError: one does not within 90 s; the end of its log is quoted.
    """
    deadline = time.monotonic() + _READY_TIMEOUT_S
    for part in lab.parts(load_demo(demo_file)):
        if part.url is None:
            continue
        on_wait(part.name)
        while not _answers(lab, part):
            if time.monotonic() > deadline:
                raise InfrastructureError(
                    f"{part.name} does not answer; its log ends:\n{log_tail(lab, part.name)}",
                    where=part.url, hint=f"see {lab.log_dir}",
                )  # fmt: skip
            time.sleep(0.1)


def stop(lab: LocalLab) -> bool:
    """Stop the lab in order; False when it did not run.

    Raises:
        InfrastructureError: the supervisor does not end.
    """
    pid = supervisor_pid(lab)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while supervisor_pid(lab) == pid:
        if time.monotonic() > deadline:
            raise InfrastructureError(f"the lab's supervisor (pid {pid}) does not end", where=str(lab.out))
        time.sleep(0.05)
    return True


def log_tail(lab: LocalLab, part: str, lines: int = 10) -> str:
    """Return the last lines of a part's log."""
    return "\n".join(last_lines(lab.log_dir / f"{part}.log", lines)) or "(no log)"


def _answers(lab: LocalLab, part: Part) -> bool:
    try:
        with Endpoint(part.url or "", lab.token(part.name)).sync_client(timeout_s=2) as client:
            return ask_sync(client, "GET", "/v1/health", within_s=2).is_success
    except (httpx.TransportError, EpiError):
        return False
