"""`epi meter fault`: make a running emulator misbehave."""

import os
import socket
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from shared.kernel.errors import ConfigurationError, InfrastructureError
from shared.screen import say

_ANSWER_BYTES = 1000


def fault(
    control: Annotated[Path, typer.Argument(help="the emulator's --control socket")],
    spec: Annotated[str, typer.Argument(help="KIND[:key=value,...][@START[+DURATION]], as unplug@0+5")],
) -> None:
    """Send one fault to an emulator that was started with --control."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.bind(os.path.join(folder, "answer"))  # noqa: PTH118 - bind wants a string
        client.settimeout(5)
        try:
            client.sendto(spec.encode(), str(control))
            answer = client.recv(_ANSWER_BYTES).decode()
        except OSError as error:
            raise InfrastructureError(f"the emulator does not answer: {error}", where=str(control)) from error
    if answer != "ok":
        raise ConfigurationError(answer, where=spec)
    say("ok")
