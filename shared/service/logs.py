"""How every daemon logs: one configuration, one line a record, `key=value` for what it belongs to, no secrets.

Our own packages log from the level that the settings say, everybody else's from `warning`. Under systemd each line
begins with its priority (`<6>`, sd-daemon(3)) and the journal stamps the time; elsewhere the line begins with the time.
What a record belongs to (campaign, run, attempt, job) is set once with `log_fields` and follows into every call and
task below. Not here: the audit log (`shared.service.audit`).
"""

import json
import logging
import os
import re
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final, TextIO

from shared.kernel.clock import iso_utc
from shared.kernel.settings import LogLevel

OUR_PACKAGES: Final = ("shared", "orchestrator", "node_agent", "surgeon", "meter_bridge")
_NEVER_BELOW_WARNING: Final = ("httpx", "httpcore", "telegram", "websockets", "aiosqlite", "asyncio", "uvicorn")
"""Libraries that are not heard below `warning` at whatever level: some write addresses that have tokens in them."""
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY: Final = 7
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN: Final = re.compile(r"[\w.@:/+-]+")
_HELD_MAX: Final = 1000
_SHORTEST_SECRET: Final = 8

_fields: ContextVar[dict[str, str | int]] = ContextVar("log_fields", default={})  # noqa: B039 (never changed in place)
_secrets: set[str] = set()


@contextmanager
def log_fields(**fields: str | int) -> Iterator[None]:
    """Add `key=value` to every record that is logged inside, also by tasks that are started inside."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def hide(secret: str | None) -> None:
    """Never write `secret` into a log of this process."""
    if secret is not None and len(secret) >= _SHORTEST_SECRET:
        _secrets.add(secret)


def under_journal(stream: TextIO) -> bool:
    """Tell whether `stream` goes to the systemd journal: JOURNAL_STREAM names its device and inode."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


class LineFormatter(logging.Formatter):
    """One line a record, however hostile its words; a traceback follows on lines of its own."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line(s) without the last line break."""
        line = f"{record.name}: {_printable(record.getMessage())}{_key_values(_fields.get())}"
        at = iso_utc(int(record.created * 1e9))
        if self._journal and getattr(record, "held", False):  # the journal will stamp a later time
            line += f" at={at}"
        lines = [line]
        if record.exc_info:
            lines += [f"  {_printable(one)}" for one in self.formatException(record.exc_info).split("\n")]
        text = "\n".join(lines)
        for secret in _secrets:
            text = text.replace(secret, "***")
        if not self._journal:
            return f"{at} {record.levelname:<7} {text}"
        priority = _priority(record.levelno)
        return "\n".join(f"{priority}{one}" for one in text.split("\n"))


def _printable(text: str) -> str:
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


def _priority(level: int) -> str:
    return f"<{next((number for least, number in _PRIORITIES if level >= least), _DEBUG_PRIORITY)}>"


def _key_values(fields: dict[str, str | int]) -> str:
    words = ((key, str(value)) for key, value in fields.items() if value != "")
    return "".join(f" {key}={value if _PLAIN.fullmatch(value) else json.dumps(value)}" for key, value in words)


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines, or keeps them in memory for a while: writing costs power, which a measurement window would hold."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._journal = under_journal(stream)
        self.setFormatter(LineFormatter(journal=self._journal))
        self._held: deque[str] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or keep its line; of more than `_HELD_MAX` lines the oldest are lost."""
        if self._held is None:
            super().emit(record)
            return
        record.held = True
        try:
            self._held.append(self.format(record))
        except Exception:
            self.handleError(record)

    def say(self, level: int, text: str) -> None:
        """Write a line for a person, with nothing before it but its priority where the journal reads."""
        self.stream.write(f"{_priority(level) if self._journal else ''}{text}\n")
        self.flush()

    def hold(self) -> None:
        """Keep what is logged from now on."""
        with self._locked():
            if self._held is None:
                self._held = deque(maxlen=_HELD_MAX)

    def write_held(self) -> None:
        """Write what was kept, and from now on everything at once."""
        with self._locked():
            held, self._held = self._held, None
            for line in held or ():
                with suppress(OSError, ValueError):
                    self.stream.write(line + self.terminator)
            self.flush()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()


def configure_logging(level: LogLevel, stream: TextIO = sys.stderr) -> LineHandler:
    """Let this process log to `stream` from `level`, and return the handler that writes; called again it replaces."""
    handler = LineHandler(stream)
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, LineHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    ours = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(ours, logging.WARNING))
    for name in OUR_PACKAGES:
        logging.getLogger(name).setLevel(ours)
    for name in _NEVER_BELOW_WARNING:
        library = logging.getLogger(name)
        library.setLevel(max(ours, logging.WARNING))
        library.propagate = True  # uvicorn's own configuration, where it ran before, keeps its lines to itself
    logging.captureWarnings(True)
    return handler


def hold_logs() -> None:
    """Keep what this process logs in memory until `write_held_logs`: nothing is written inside a measurement window."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler):
            handler.hold()


def write_held_logs() -> None:
    """Write what was kept."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler):
            handler.write_held()
