"""`/docs`: the API page of a service, Swagger UI over its own `/openapi.json`; every file comes from this service.

Swagger UI's files are those of the package `fastapi-offline`, read when somebody looks: nothing is loaded from
elsewhere, and the page works in a lab without Internet. A signed-in browser tries requests with its session.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response

from shared.kernel.errors import InfrastructureError, NotFoundError
from shared.service.page_headers import PAGE_POLICY
from shared.service.sessions import FORM_HEADER

PATHS: Final = ("/docs", "/docs/")
_PACKAGE: Final = "fastapi_offline"
_PACKED: Final = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_START: Final = f"""\
const session = document.currentScript.dataset.session === "yes"
  ? fetch("/v1/session").then((answer) => (answer.ok ? answer.json() : {{}}), () => ({{}}))
  : Promise.resolve({{}});
SwaggerUIBundle({{
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  requestInterceptor: async (request) => {{
    const token = (await session).form_token;
    if (token && !request.headers.Authorization) request.headers["{FORM_HEADER}"] = token;
    return request;
  }},
}});
"""


def api_page_router(title: str, *, signs_in: bool) -> APIRouter:
    """Return the router of the page; `PATHS` are to be open, they hold no data.

    Raises (its endpoints):
        NotFoundError: no such file.
        InfrastructureError: the package is not installed; the hint says what brings it.
    """
    router = APIRouter(include_in_schema=False)
    page = _page(title, signs_in=signs_in)

    @router.get("/docs")
    def docs() -> Response:
        """Return the page."""
        return _answer(page.encode(), "text/html", {"Cache-Control": "no-cache"})

    @router.get("/docs/{name}")
    def file(name: str) -> Response:
        """Return a file of the page."""
        if name == "start.js":
            return _answer(_START.encode(), "text/javascript", {"Cache-Control": "no-cache"})
        if name not in _PACKED:
            raise NotFoundError("no such file", where=f"/docs/{name}")
        return _answer(_packed(name), _PACKED[name], {"Cache-Control": "max-age=3600"})

    return router


def _page(title: str, *, signs_in: bool) -> str:
    return f"""\
<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <title>{title}: API</title>
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <link rel="icon" href="data:," />
    <link rel="stylesheet" href="/docs/swagger-ui.css" />
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="/docs/swagger-ui-bundle.js"></script>
    <script src="/docs/start.js" data-session="{"yes" if signs_in else "no"}"></script>
  </body>
</html>
"""


def _packed(name: str) -> bytes:
    spec = find_spec(_PACKAGE)  # its place alone: it is not imported
    if spec is None or spec.origin is None:
        raise InfrastructureError(
            "the API page's files are not installed", where=f"/docs/{name}", hint="pip install fastapi-offline"
        )
    return (Path(spec.origin).parent / "static" / name).read_bytes()


def _answer(body: bytes, kind: str, headers: Mapping[str, str]) -> Response:
    return Response(
        body, media_type=f"{kind}; charset=utf-8", headers={**headers, "Content-Security-Policy": PAGE_POLICY}
    )
