"""The API's documentation in a browser. Swagger UI's files come from an installed package."""

from __future__ import annotations

from functools import cache
from importlib import resources

from fastapi import FastAPI, Request, Response

from gateway.openapi import TITLE
from gateway.problems import HttpError
from gateway.routing import PublicRoute

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": _CSP,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), "
    "magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=()",
}
_PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{TITLE} API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="ui"></div><script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script></body>
</html>
"""
_START = """window.ui = SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#ui", deepLinking: true, persistAuthorization: true, filter: true,
  tryItOutEnabled: true, defaultModelsExpandDepth: 0, validatorUrl: null
});
"""
_TYPES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}


@cache
def _asset(name: str) -> bytes:
    return resources.files("fastapi_swagger").joinpath("resources", name).read_bytes()


def add_docs(app: FastAPI) -> None:
    """Serve /docs and /openapi.json."""
    document: list[bytes] = []

    async def openapi(_: Request) -> Response:
        if not document:
            import msgspec  # the first request makes the document, which takes a tenth of a second

            document.append(msgspec.json.encode(app.openapi()))
        return Response(document[0], 200, {"cache-control": "no-cache"}, "application/json")

    async def page(_: Request) -> Response:
        return _file(_PAGE.encode(), "text/html")

    async def part(request: Request) -> Response:
        name = request.path_params["name"]
        if name == "start.js":
            return _file(_START.encode(), "text/javascript")
        if name not in _TYPES:
            raise HttpError(404, "ROUTE_NOT_FOUND", "This path is not found.")
        return _file(_asset(name), _TYPES[name])

    app.router.routes.append(PublicRoute("/openapi.json", openapi, methods=["GET"]))
    app.router.routes.append(PublicRoute("/docs", page, methods=["GET"]))
    app.router.routes.append(PublicRoute("/docs/{name}", part, methods=["GET"]))


def _file(content: bytes, media_type: str) -> Response:
    return Response(content, 200, _HEADERS, media_type)
