"""What the dashboard's routes serve: nothing but listed files, with strict headers; missing packages are named."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from orchestrator.web.routes import OPEN_PATHS, STATIC_DIR, VENDOR_FILES, web_router
from shared.service.http import make_app


@pytest.fixture
def client() -> TestClient:
    app = make_app("web", "0", "right", open_paths=OPEN_PATHS)
    app.include_router(web_router())
    return TestClient(app)


def test_the_page_and_all_that_it_names_are_served_with_strict_headers(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    for path in (*STATIC_DIR.rglob("*.js"), *STATIC_DIR.rglob("*.css")):
        answer = client.get(f"/static/{path.relative_to(STATIC_DIR).as_posix()}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/javascript" if path.suffix == ".js" else "text/css")
        assert answer.headers["content-security-policy"] == policy


def test_no_markup_or_script_stands_in_the_page_itself() -> None:
    html = (STATIC_DIR / "index.html").read_text(encoding="utf-8")
    first = '<script src="/static/js/enter.js"></script>'
    assert 0 < html.index(first) < min(html.index("<link"), html.index('<script type="module"')), "first of all"
    html = html.replace(first, "")
    assert "<style" not in html and "style=" not in html and "onclick" not in html
    assert html.count("<script") == html.count('<script type="module" src=')
    for script in STATIC_DIR.rglob("*.js"):
        text = script.read_text(encoding="utf-8")
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text and "eval(" not in text, script.name
        assert "http://" not in text.replace("http://127.0.0.1", "").replace("http://www.w3.org/2000/svg", ""), (
            script.name
        )


@pytest.mark.parametrize(
    "name", ["../routes.py", "..%2froutes.py", "%2e%2e/routes.py", "js/../../routes.py", "/etc/passwd", "nothing.js"]
)
def test_nothing_outside_the_list_is_served(client: TestClient, name: str) -> None:
    answer = client.get(f"/static/{name}", headers={"Authorization": "Bearer right"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] in ("not_found", "http_404")


def test_a_known_file_is_not_sent_twice(client: TestClient) -> None:
    first = client.get("/static/js/main.js")
    again = client.get("/static/js/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and again.content == b""


def test_a_package_that_is_not_installed_is_named_with_its_command(tmp_path: Path) -> None:
    app = make_app("web", "0", None)
    app.include_router(web_router(modules_dir=tmp_path))
    client = TestClient(app, base_url="http://127.0.0.1")
    for address in VENDOR_FILES:
        error = client.get(f"/vendor/{address}").json()["error"]
        assert "make web" in error["hint"]
    assert client.get("/").status_code == 200
