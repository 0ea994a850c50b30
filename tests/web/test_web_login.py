"""Signing in and out in a real browser: what it keeps, what other pages can do with its cookie, what leaves it."""

import http.server
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.bridge_daemon import TOKEN as BRIDGE_TOKEN
from tests.support.bridge_daemon import bridge_daemon
from tests.web.conftest import TOKEN, Open, serving
from tests.web.test_web_states import Invented, settle

OWNER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """Give the origin of an invented lab of this test's own; it keeps its audit log in `tmp_path`."""
    with serving("running", folder=tmp_path) as url:
        yield url.split("/#")[0]


def link_to(lab: str) -> str:
    """Return a link that signs in once."""
    code = httpx.post(f"{lab}/v1/session/codes", headers=OWNER).json()["code"]
    return f"{lab}/#code={code}"


@contextmanager
def stranger(page: bytes = b"<!doctype html><title>stranger</title>") -> Iterator[str]:
    """Serve a page on another port of the same address: for a browser another origin of the same site."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_link_signs_in_once_and_neither_page_nor_profile_keeps_what_it_brought(
    browser: Browser, lab: str, tmp_path: Path
) -> None:
    link = link_to(lab)
    program = browser.browser_type
    profile = program.launch_persistent_context(
        tmp_path / "profile", executable_path="/usr/bin/chromium", headless=True, args=["--no-sandbox", "--disable-gpu"]
    )
    with closing(profile):
        page = profile.pages[0]
        page.goto(link)
        settle(page)
        assert page.url == f"{lab}/"
        page.reload()
        settle(page)
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert "theme" in kept or kept == '[{},{},""]'
        cookies = [one for one in profile.cookies() if one["name"].startswith("epi-session-")]
        assert [(one["httpOnly"], one["sameSite"]) for one in cookies] == [(True, "Strict")]
    with closing(sqlite3.connect(next((tmp_path / "profile").rglob("History")))) as history:
        addresses = " ".join(str(row) for row in history.execute("SELECT url FROM urls"))
    assert lab in addresses
    whole = b"".join(path.read_bytes() for path in (tmp_path / "profile").rglob("*") if path.is_file())
    assert TOKEN.encode() not in whole
    answer = httpx.post(f"{lab}/v1/session", headers={"Authorization": f"Bearer {link.partition('=')[2]}"})
    assert answer.status_code == 401, "the code in the history is worth nothing"


def test_a_spent_link_says_so_and_a_signed_in_browser_may_open_it_again(open_page: Open, lab: str) -> None:
    link = link_to(lab)
    first = open_page(link, expect_errors=True).page
    settle(first)
    first.goto(link)
    other = open_page(link, expect_errors=True).page
    expect(other.get_by_role("alert")).to_contain_text("did not open the lab")
    expect(other.locator(".signin")).to_contain_text("epi dashboard")
    settle(first)


def test_signing_out_ends_the_session_here_and_at_the_server(open_page: Open, lab: str) -> None:
    opened = open_page(f"{lab}/#token={TOKEN}", expect_errors=True)
    page = opened.page
    settle(page)
    (cookie,) = page.context.cookies()
    stolen = {"Cookie": f"{cookie['name']}={cookie['value']}"}
    assert httpx.get(f"{lab}/v1/lab", headers=stolen).status_code == 200
    second = page.context.new_page()
    second.goto(lab)
    settle(second)
    opened.go("lab")
    leave = page.get_by_role("button", name="Sign out")
    leave.focus()
    page.keyboard.down("Enter")
    page.get_by_label("Token", exact=False).wait_for()
    page.keyboard.up("Enter")
    assert page.context.cookies() == []
    assert httpx.get(f"{lab}/v1/lab", headers=stolen).status_code == 401
    # The other tab's feed is closed by the server, and its page asks who is there.
    second.get_by_label("Token", exact=False).wait_for()
    page.reload()
    page.get_by_label("Token", exact=False).wait_for()


def test_all_browsers_are_signed_out_at_once(open_page: Open, lab: str) -> None:
    pages = [open_page(f"{lab}/#token={TOKEN}", expect_errors=True).page for _ in range(2)]
    for page in pages:
        settle(page)
    assert httpx.delete(f"{lab}/v1/sessions", headers=OWNER).json() == {"sessions": 2}
    for page in pages:
        page.get_by_label("Token", exact=False).wait_for()


FORGERIES = """
async (lab) => {
  const asked = (path, options) =>
    fetch(`${lab}/v1/${path}`, { credentials: "include", ...options }).then(() => "read", () => "");
  const post = { method: "POST", mode: "no-cors" };
  const read = [
    await asked("campaigns/demo/cancel", post),
    await asked("campaigns", { ...post, body: "{}" }),
    await asked("session/codes", post),
    await asked("lab", { mode: "no-cors" }),
    await asked("session", {}),
    await asked("session", { method: "DELETE" }),
    await asked("session", { headers: { "X-EPI-Form-Token": "x" } }),
  ];
  const socket = new WebSocket(`${lab.replace("http", "ws")}/v1/live`);
  const feed = await new Promise((tell) => {
    socket.onopen = () => tell("open");
    socket.onerror = () => tell("refused");
  });
  const form = document.createElement("form");
  Object.assign(form, { method: "POST", action: `${lab}/v1/campaigns/demo/pause` });
  document.body.append(form);
  form.submit();
  return [read.join(""), feed];
}
"""


def test_no_page_of_another_origin_uses_the_cookie(open_page: Open, lab: str, tmp_path: Path) -> None:
    page = open_page(f"{lab}/#token={TOKEN}", expect_errors=True).page
    settle(page)
    with stranger() as address:
        other = page.context.new_page()
        other.goto(address)
        with other.expect_response("**/pause") as forged:
            assert other.evaluate(FORGERIES, lab) == ["", "refused"]
        assert forged.value.status == 403
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    noted = [(line["method"], line["path"].removeprefix("/v1/"), line["status"]) for line in lines]
    assert noted[0] == ("POST", "session", 200)
    # 403, where a stranger without the cookie gets 401: the browser did send it, what refused was the service.
    assert noted[1:5] == [
        ("POST", "campaigns/demo/cancel", 403), ("POST", "campaigns", 403), ("POST", "session/codes", 403),
        ("GET", "lab", 403),
    ]  # fmt: skip
    assert all(status in (401, 403) for _, _, status in noted[1:]), noted
    assert httpx.get(f"{lab}/v1/campaigns", headers=OWNER).json()[0]["state"] == "running"
    page.reload()
    settle(page)


def test_a_page_of_this_origin_needs_its_form_token_too(open_page: Open, lab: str) -> None:
    page = open_page(f"{lab}/#token={TOKEN}", expect_errors=True).page
    settle(page)
    status = "async (headers) => (await fetch('/v1/session/codes', { method: 'POST', headers })).status"
    assert page.evaluate(status, {}) == 403
    token = page.evaluate("async () => (await (await fetch('/v1/session')).json()).form_token")
    assert page.evaluate(status, {"X-EPI-Form-Token": token}) == 200


def elsewhere(page: Page, origin: str) -> list[str]:
    """Cut the page off from everything but its own origin, and note what it would have liked to have."""
    wanted: list[str] = []
    page.context.on(
        "request",
        lambda request: None if request.url.startswith((origin, "data:", "blob:")) else wanted.append(request.url),
    )
    page.context.route(lambda url: not url.startswith(origin), lambda route: route.abort())
    return wanted


def test_nothing_leaves_the_origin_whatever_is_looked_at(open_page: Open, invented: Invented) -> None:
    url = invented("finished")
    opened = open_page(None)
    origin = url.split("/#")[0]
    wanted = elsewhere(opened.page, origin)
    opened.page.goto(url)
    settle(opened.page)
    for view in ("campaign", "run/drop4_all/1", "lab", "new", "now"):
        opened.go(view)
        opened.page.wait_for_load_state("networkidle")
    referred = opened.page.evaluate("document.referrer")
    assert wanted == [] and referred == ""


def test_the_api_page_of_the_dashboard_works_without_the_internet_and_in_the_session(open_page: Open, lab: str) -> None:
    opened = open_page(f"{lab}/#token={TOKEN}")
    page = opened.page
    settle(page)
    wanted = elsewhere(page, lab)
    answer = page.goto(f"{lab}/docs")
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy
    page.get_by_text("/v1/session/codes", exact=True).click()
    page.get_by_role("button", name="Try it out").click()
    with page.expect_response("**/v1/session/codes") as tried:
        page.get_by_role("button", name="Execute").click()
    assert tried.value.status == 200
    assert wanted == []
    assert page.evaluate("JSON.stringify({...localStorage})").count(TOKEN) == 0


def test_the_api_page_of_an_agent_works_without_the_internet(open_page: Open, tmp_path: Path) -> None:
    with bridge_daemon(tmp_path) as bridge:
        origin = f"http://127.0.0.1:{bridge.port}"
        page = open_page(None).page
        wanted = elsewhere(page, origin)
        page.goto(f"{origin}/docs")
        page.get_by_role("button", name="Authorize").click()
        page.locator(".auth-container input").fill(BRIDGE_TOKEN)
        page.get_by_role("button", name="Apply credentials").click()
        page.get_by_role("button", name="Close", exact=True).click()
        page.get_by_text("/v1/health", exact=True).click()
        page.get_by_role("button", name="Try it out").click()
        with page.expect_response("**/v1/health") as tried:
            page.get_by_role("button", name="Execute").click()
        assert tried.value.status == 200
        assert wanted == []
        assert BRIDGE_TOKEN not in page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
        assert httpx.get(f"{origin}/redoc").status_code == 401, "no page but this one"
