"""Real headless Chromium for the tests of the dashboard; a missing one fails, with the line that brings it."""

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from orchestrator.web.routes import MODULES_DIR, missing_packages
from shared.service.audit import AuditLog
from tests.web.fixture_server import make_fixture_app

TOKEN = "a-token-for-the-fixture"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--js-flags=--expose-gc",
)
SIZES = {"display": (1280, 800), "phone": (390, 844), "desktop": (1920, 1080)}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Give one Chromium to all tests."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.fail("Chromium is not installed: sudo apt-get install -y chromium", pytrace=False)
    if missing := missing_packages():
        pytest.fail(f"{', '.join(missing)} not installed: run `make web`", pytrace=False)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, headless=True, args=list(ARGUMENTS))
        yield chromium
        chromium.close()


@dataclass
class Opened:
    """A page with what its console said."""

    page: Page
    said: list[str] = field(default_factory=list)

    def go(self, view: str) -> None:
        """Show a view, for example `campaign` or `run/baseline/1`."""
        self.page.evaluate("view => { location.hash = `#/${view}`; }", view)
        self.page.locator(".view").wait_for()


Open = Callable[..., Opened]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Give a function that opens an address in a fresh profile; an error in a console fails the test at its end."""
    opened: list[Opened] = []
    contexts = []

    def open_at(url: str | None, size: str = "display", theme: str = "dark", expect_errors: bool = False) -> Opened:
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, has_touch=size != "desktop")
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        one = Opened(page)
        if not expect_errors:
            opened.append(one)

        def note(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                one.said.append(f"{message.type}: {message.text}")

        page.on("console", note)
        page.on("pageerror", lambda error: one.said.append(f"uncaught: {error}"))
        page.add_init_script(f"localStorage.getItem('epi.theme') ?? localStorage.setItem('epi.theme', '{theme}')")
        if url is not None:
            page.goto(url)
        return one

    yield open_at
    said = [line for one in opened for line in one.said]
    for context in contexts:
        context.close()
    assert said == []


@contextmanager
def serving(
    state: str, hurry: bool = False, port: int | None = None, thinks_s: float = 0.0, folder: Path | None = None,
    tls: Path | None = None,
) -> Iterator[str]:  # fmt: skip
    """Serve an invented lab (tests/web/states.py) and give its address.

    `folder` keeps its sessions and audit log; `tls` holds what tests/support/certificates.py makes.
    """
    port = port or free_port()
    sessions_file = None if folder is None else folder / "sessions.json"
    app = make_fixture_app(state, token=TOKEN, hurry=hurry, thinks_s=thinks_s, sessions_file=sessions_file)
    audit = None if folder is None else AuditLog(app, folder / "audit.jsonl")
    config = uvicorn.Config(
        audit or app,
        host="127.0.0.1",
        port=port,
        log_level="error",
        timeout_graceful_shutdown=1,
        ssl_certfile=None if tls is None else tls / "server.pem",
        ssl_keyfile=None if tls is None else tls / "server.key",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < deadline, "the fixture server did not start"
        time.sleep(0.02)
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{port}/#token={TOKEN}"
    finally:
        server.should_exit = True
        thread.join(10)
        if audit is not None:
            audit.close()


@pytest.fixture(scope="session")
def invented() -> Iterator[Callable[[str], str]]:
    """Give a function from a state of the lab to the address that shows it; each is served once a session."""
    with ExitStack() as stack:
        yield cache(lambda state: stack.enter_context(serving(state)))


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def axe_source() -> str:
    """Return axe-core as npm installed it, or fail naming what brings it."""
    path: Path = MODULES_DIR / "axe-core" / "axe.min.js"
    if not path.is_file():
        pytest.fail("axe-core is not installed: run `make web`", pytrace=False)
    return path.read_text(encoding="utf-8")
