"""`epi up` and `epi down`: the whole lab on this machine, left running for curl and the browser."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.api import find_api, sign_in_link
from orchestrator.local import control
from orchestrator.local.layout import LocalLab
from shared.kernel.errors import ConfigurationError
from shared.screen import Screen, say, say_json

up = typer.Typer(help="Start orchestrator, agents, meter bridge and emulator here and leave them running.")
down = typer.Typer(help="Stop the lab that `epi up` started.")

OutOption = Annotated[Path, typer.Option("--out", help="Folder of results and of the lab's files.")]
DemoOption = Annotated[Path | None, typer.Option("--demo", help="Settings of the embedded lab (demo.toml).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]

console = Screen(stderr=True, soft_wrap=True)


def start_lab(out: Path, demo: Path | None, *, die_with_parent: bool) -> LocalLab:
    """Start a lab and wait until all of it answers; nothing is left running when that fails."""
    demo_file = control.find_demo(demo)
    lab = LocalLab(out.resolve())
    lab.home.mkdir(parents=True, exist_ok=True)
    control.start(lab, demo_file, die_with_parent=die_with_parent)
    try:
        with console.status("starting the lab") as status:
            control.wait_ready(lab, demo_file, lambda name: status.update(f"starting the lab: {name}"))
    except BaseException:
        control.stop(lab)
        raise
    return lab


@contextmanager
def running_lab(out: Path, demo: Path | None) -> Iterator[LocalLab]:
    """Give a running lab; one that was not running before is stopped at the end, whatever happens.

    A terminal that closes or a `kill` cleans up as Ctrl-C does, and Ctrl-C works also where a shell's `&` had
    switched it off.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    lab = LocalLab(out.resolve())
    if control.supervisor_pid(lab) is not None:
        yield lab
        return
    lab = start_lab(out, demo, die_with_parent=True)
    try:
        yield lab
    finally:
        with console.status("stopping the lab"):
            control.stop(lab)


@up.callback(invoke_without_command=True)
def _up(out: OutOption = Path("results"), demo: DemoOption = None, as_json: JsonOption = False) -> None:
    lab = start_lab(out, demo, die_with_parent=False)
    link = sign_in_link(find_api(out, None, None))
    if as_json:
        say_json({
            "dashboard": link, "api": lab.url("orchestrator"),
            "token_file": str(lab.token_file("orchestrator")), "logs": str(lab.log_dir),
        })  # fmt: skip
        return
    say(f"dashboard: {link}  (opens once, within an hour; `epi dashboard` prints another)")
    say(f"api:       {lab.url('orchestrator')}/v1  (token in {lab.token_file('orchestrator')})")
    say(f"logs:      {lab.log_dir}")
    say("stop it with `epi down`" + ("" if out == Path("results") else f" --out {out}"))


@down.callback(invoke_without_command=True)
def _down(out: OutOption = Path("results"), as_json: JsonOption = False) -> None:
    stopped = control.stop(LocalLab(out.resolve()))
    if as_json:
        say_json({"stopped": stopped})
    elif not stopped:
        raise ConfigurationError("no lab runs there", where=str(out), hint="`epi up` starts one")
    else:
        say("stopped")
