"""The one logging configuration: fields, priorities, hostile words, secrets, levels, silence."""

import asyncio
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.service.logs import configure_logging, hide, hold_logs, log_fields, under_journal, write_held_logs

log = logging.getLogger("shared.service.somewhere")


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("info", stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers, root.level = handlers, level


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: io.StringIO) -> Iterator[Path]:
    with (tmp_path / "journal").open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        configure_logging("debug", stream)
        yield tmp_path / "journal"


async def test_fields_follow_into_tasks_and_end_with_their_block(out: io.StringIO) -> None:
    async def inner() -> None:
        log.info("measured")

    with log_fields(campaign="paper", run="baseline/rep-1"):
        with log_fields(attempt=2, job=""):
            task = asyncio.create_task(inner())
        await task
        log.info("goes on")
    log.info("over")
    ends = [line.split("somewhere: ")[1] for line in out.getvalue().splitlines()]
    assert ends == ["measured campaign=paper run=baseline/rep-1 attempt=2", "goes on campaign=paper run=baseline/rep-1",
                    "over"]  # fmt: skip


def test_a_record_is_one_line_whatever_it_says(out: io.StringIO) -> None:
    with log_fields(job='a b"\n<3>c'):
        log.warning("hello\n<0>forged \x1b[31m%s", "é\r\u2028")
    (line,) = out.getvalue().splitlines()
    assert line.endswith(r'hello\n<0>forged \x1b[31mé\r\u2028 job="a b\"\n<3>c"')


def test_a_secret_is_never_written_also_not_by_an_exception(out: io.StringIO) -> None:
    hide("correct-horse-battery")
    try:
        raise ValueError("https://lab/bot123:correct-horse-battery/get")
    except ValueError:
        log.exception("asking with %s", "correct-horse-battery")
    assert "correct-horse" not in out.getvalue()
    assert out.getvalue().count("***") == 3


def test_libraries_are_heard_from_warning_whatever_our_level(journal: Path) -> None:
    log.debug("ours")
    for name in ("httpx", "httpcore.http11", "telegram.ext", "uvicorn.error", "asyncio", "lm_eval.tasks"):
        logging.getLogger(name).info("POST https://api/bot-with-token")
    logging.getLogger("uvicorn.error").error("Exception in ASGI application")
    assert journal.read_text().splitlines() == [
        "<7>shared.service.somewhere: ours", "<3>uvicorn.error: Exception in ASGI application",
    ]  # fmt: skip


def test_each_line_of_a_traceback_has_the_priority(journal: Path) -> None:
    try:
        raise ValueError("two\nlines \x1b[2J")
    except ValueError:
        log.exception("broken")
    first, *more = journal.read_text().splitlines()
    assert first.startswith("<3>shared") and len(more) >= 4 and all(line.startswith("<3>  ") for line in more)
    assert more[-1] == r"<3>  lines \x1b[2J"


def test_what_is_logged_inside_a_window_is_written_after_it_with_its_own_time(journal: Path, out: io.StringIO) -> None:
    log.info("before")
    hold_logs()
    hold_logs()
    with log_fields(job="c/decode"):
        for number in range(1200):
            log.info("inside %d", number)
    assert len(journal.read_text().splitlines()) == 1
    write_held_logs()
    log.info("after")
    lines = journal.read_text().splitlines()
    assert len(lines) == 1002, "the newest thousand are kept"
    assert "inside 1199 job=c/decode at=20" in lines[-2] and lines[-1] == "<6>shared.service.somewhere: after"


def test_a_terminal_is_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "x").open("w") as stream:
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert not under_journal(stream)
        monkeypatch.setenv("JOURNAL_STREAM", "1:2")
        assert not under_journal(stream)
    assert not under_journal(io.StringIO())
