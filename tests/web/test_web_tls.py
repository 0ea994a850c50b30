"""The dashboard over HTTPS: a cookie that no plain page can set, and the display's browser, which trusts the CA."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.certificates import make_certificates
from tests.web.conftest import TOKEN, serving
from tests.web.test_web_states import settle

KIOSK = Path(__file__).parents[2] / "systemd/epi-kiosk"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder)
    return folder


@pytest.fixture
def url(tmp_path: Path, tls: Path) -> Iterator[str]:
    with serving("running", folder=tmp_path, tls=tls) as url:
        yield url


def test_over_https_the_cookie_is_of_this_host_alone(browser: Browser, url: str) -> None:
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.goto(url)
    settle(page)
    page.reload()
    settle(page)
    (cookie,) = context.cookies()
    assert cookie["name"].startswith("__Host-epi-session-")
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
    context.close()


@pytest.mark.parametrize("ca", ["ca", "stranger"])
def test_the_display_signs_in_by_itself_where_its_ca_is_the_lab_s(url: str, tls: Path, tmp_path: Path, ca: str) -> None:
    """The real starter, certificate store and browser; for the compositor stands what runs it without a display."""
    programs, credentials, state = (tmp_path / name for name in ("bin", "credentials", "state"))
    for folder in (programs, credentials, state, tmp_path / "run"):
        folder.mkdir()
    (credentials / "token").write_text(f"{TOKEN}\n")
    cage = 'for one; do shift; case "$one" in -s|--|--kiosk|--ozone*) ;; *) set -- "$@" "$one";; esac; done\n'
    (programs / "cage").write_text(f'#!/bin/sh\n{cage}exec "$@" --headless --no-sandbox --disable-gpu\n')
    (programs / "cage").chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}", "STATE_DIRECTORY": str(state),
        "RUNTIME_DIRECTORY": str(tmp_path / "run"), "CREDENTIALS_DIRECTORY": str(credentials),
        "EPI_DASHBOARD": url.split("/#")[0], "EPI_CA_FILE": f"{tls}/{ca}.pem",
    }  # fmt: skip
    with (tmp_path / "said").open("wb") as said:
        kiosk = subprocess.Popen([KIOSK], env=environment, stdout=said, stderr=said, start_new_session=True)
    try:
        signed_in = {"POST /v1/session/codes 200", "POST /v1/session 200"}
        deadline = time.monotonic() + (60 if ca == "ca" else 5)
        while not signed_in <= noted(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.2)
        if ca == "ca":
            assert signed_in <= noted(tmp_path), (tmp_path / "said").read_text()
        else:
            assert noted(tmp_path) == set()
            assert "certificate verify failed" in (tmp_path / "said").read_text()
        assert TOKEN not in (tmp_path / "said").read_text()
        assert all(TOKEN.encode() not in path.read_bytes() for path in state.rglob("*") if path.is_file())
    finally:
        os.killpg(kiosk.pid, signal.SIGKILL)
        kiosk.wait()


def noted(folder: Path) -> set[str]:
    """Return what the lab's audit log holds: method, path, status."""
    audit = folder / "audit.jsonl"
    lines = [json.loads(line) for line in audit.read_text().splitlines()] if audit.exists() else []
    return {f"{line['method']} {line['path']} {line['status']}" for line in lines}
