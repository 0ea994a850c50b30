"""Serves the dashboard: `/`, `/static/*` and the packages that npm installed under `/vendor/*`.

Static files need no token: they hold no data. What the page shows it asks from the API, in the session of its browser.
Not here: the API (`orchestrator.api`), and how the packages get here (`make web`, package.json beside this file).

Names never come from the network: all servable files are listed when the router is made, and a request is a look-up.
"""

import hashlib
import mimetypes
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from shared.kernel.errors import NotFoundError
from shared.kernel.records import Record
from shared.service.page_headers import PAGE_POLICY

HERE = Path(__file__).parent
STATIC_DIR = HERE / "static"
MODULES_DIR = HERE / "node_modules"

INSTALL_COMMAND = "make web"
"""What brings the packages; the page names it when they are missing."""

OPEN_PATHS = ("/", "/static/", "/vendor/")
"""What needs no token: the page, which holds no data."""

VENDOR_FILES = {
    "uplot/uPlot.esm.js": "uplot/dist/uPlot.esm.js",
    "uplot/uPlot.min.css": "uplot/dist/uPlot.min.css",
    "inter/inter.woff2": "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2",
}
"""Address under `/vendor/` -> file under node_modules."""

# Python's table depends on the machine's /etc/mime.types; what a browser refuses when wrong is fixed here.
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2"}


class WebFile(Record):
    """One file in memory with its type and entity tag."""

    body: bytes
    media_type: str
    etag: str


def _read(path: Path) -> WebFile:
    """Read `path` as it is served."""
    body = path.read_bytes()
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if kind.startswith("text/"):
        kind += "; charset=utf-8"
    return WebFile(body=body, media_type=kind, etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def load_files(static_dir: Path = STATIC_DIR, modules_dir: Path = MODULES_DIR) -> dict[str, WebFile]:
    """Return address -> file of everything that can be served; packages that are not installed are left out."""
    files = {
        "static/" + path.relative_to(static_dir).as_posix(): _read(path)
        for path in sorted(static_dir.rglob("*"))
        if path.is_file()
    }
    for address, inside in VENDOR_FILES.items():
        if (path := modules_dir / inside).is_file():
            files["vendor/" + address] = _read(path)
    return files


def missing_packages(modules_dir: Path = MODULES_DIR) -> tuple[str, ...]:
    """Return the addresses of `VENDOR_FILES` that are not installed (empty after `make web`)."""
    return tuple(address for address, inside in VENDOR_FILES.items() if not (modules_dir / inside).is_file())


def _answer(request: Request, file: WebFile) -> Response:
    """Send the file, or 304 when the browser has it already."""
    headers = {"Content-Security-Policy": PAGE_POLICY, "ETag": file.etag, "Cache-Control": "no-cache"}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)


def web_router(static_dir: Path = STATIC_DIR, modules_dir: Path = MODULES_DIR) -> APIRouter:
    """Return the router of the dashboard; `OPEN_PATHS` are to be open.

    Files are read once, here: a changed file is served after a restart.

    Raises (its endpoints):
        NotFoundError: no such file; for a package that is not installed the hint says which command brings it.
    """
    files = load_files(static_dir, modules_dir)
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def index(request: Request) -> Response:
        """Return the page."""
        return _answer(request, files["static/index.html"])

    @router.get("/static/{name:path}")
    def static(request: Request, name: str) -> Response:
        """Return a file of the dashboard."""
        if (file := files.get("static/" + name)) is None:
            raise NotFoundError("no such file", where=f"/static/{name}")
        return _answer(request, file)

    @router.get("/vendor/{name:path}")
    def vendor(request: Request, name: str) -> Response:
        """Return a file of an installed package."""
        if (file := files.get("vendor/" + name)) is None:
            hint = f"run `{INSTALL_COMMAND}` and restart the orchestrator" if name in VENDOR_FILES else ""
            raise NotFoundError("this package is not installed", where=f"/vendor/{name}", hint=hint)
        return _answer(request, file)

    return router
