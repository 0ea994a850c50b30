"""Run one task in a process of its own: llama.cpp aborts its process when it gives up, and Python threads share a lock.

`python -m surgeon.work.child` reads a task as JSON from stdin and writes JSON lines: progress, then one result or
error. It dies with its parent. `run_in_child` is the other end.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from shared.files.disk import storage_error
from shared.kernel.errors import BugError, EpiError, ErrorPayload, InfrastructureError, from_payload
from shared.kernel.progress import Progress, throttled
from shared.service.child_output import last_words
from shared.service.die_with_parent import die_with_parent
from surgeon.work.tasks import TASK, Done, Task, run

log = logging.getLogger(__name__)

_LINE_LIMIT: Final = 64 << 20


async def run_in_child(task: Task, on_progress: Progress) -> Done:
    """Run the task in a child process; cancelling kills it.

    Raises:
        EpiError: what the task raised.
        InfrastructureError: the child died, with its last words.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "surgeon.work.child", str(os.getpid()),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        limit=_LINE_LIMIT,
    )  # fmt: skip
    assert process.stdin and process.stdout and process.stderr
    begun = time.monotonic()
    log.info("%s begins in a child (pid %d)", task.task, process.pid)
    words = asyncio.create_task(last_words(process.stderr))
    outcome: dict[str, Any] = {}
    try:
        process.stdin.write(task.model_dump_json().encode())
        process.stdin.close()
        async for line in process.stdout:
            message = _message(line)
            if "progress" in message:
                on_progress(message["progress"], message["message"])
            else:
                outcome = message
        await process.wait()
    except (BrokenPipeError, ConnectionResetError):
        await process.wait()  # it died before it had read its task: its last words say why
    except ValueError as error:  # a line without end, or one that is no message
        if process.returncode is None:
            process.kill()
        await process.wait()
        raise InfrastructureError(f"the {task.task} process says what is no message: {error}") from error
    except BaseException:
        if process.returncode is None:
            process.kill()
        await process.wait()
        raise
    finally:
        end = (await words).decode("utf-8", "replace").strip()
        ended = f"{task.task} in the child (pid {process.pid}) ended with {process.returncode}"
        log.log(
            logging.WARNING if process.returncode else logging.INFO, "%s after %.1f s", ended, time.monotonic() - begun
        )
    if "error" in outcome:
        raise from_payload(ErrorPayload.model_validate(outcome["error"]))
    if "result" not in outcome:
        raise InfrastructureError(
            f"the {task.task} process ended with {process.returncode}: {end[-500:]}", hint="memory? see the log"
        )
    return Done.model_validate(outcome["result"])


def _message(line: bytes) -> dict[str, Any]:
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError(f"{line[:80]!r}")
    return message


def main() -> None:
    """Read a task, do it, write what happens."""
    die_with_parent(signal.SIGKILL, int(sys.argv[1]))
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not come between the lines

    def write(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")

    task: Task | None = None
    try:
        task = TASK.validate_json(sys.stdin.read())
        done = run(task, throttled(lambda fraction, message: write({"progress": fraction, "message": message})))
        write({"result": done.model_dump(mode="json")})
    except EpiError as error:
        write({"error": error.to_payload().model_dump()})
    except Exception as error:
        write({"error": _of_the_lab(error, task).to_payload().model_dump()})
        raise


def _of_the_lab(error: Exception, task: Task | None) -> EpiError:
    if isinstance(error, OSError):
        named = error.filename if isinstance(error.filename, str) else getattr(task, "target", "")
        if (of_the_disk := storage_error(error, Path(named), "what the task makes")) is not None:
            return of_the_disk
    return BugError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
