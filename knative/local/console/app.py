"""The console as an ASGI application: receives spans (OTLP), and serves pages and JSON.

It is for one developer on one machine and has no authentication. So it listens only on loopback, accepts only requests
whose Host header names a loopback host (against DNS rebinding), and accepts changes only from its own pages.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from starlette.applications import Starlette
from starlette.datastructures import Headers, QueryParams
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from knative.local.console.memory import Memory
from knative.local.console.spans import NotSpans, decode

OTLP_PATH: Final = "/v1/traces"
READY_PATH: Final = "/healthz/ready"
MAX_BODY: Final = 8 * 1024 * 1024
_FILES: Final = {
    "": "text/html",
    "console.css": "text/css",
    "console.js": "text/javascript",
    "flow.js": "text/javascript",
    "waterfall.js": "text/javascript",
}
_HEADERS: Final = {
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), "
    "magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=()",
    "referrer-policy": "no-referrer",
}
_HOSTS: Final = ["localhost", "127.0.0.1"]


class Console:
    """The request handlers. `state` is the runner's platform.json, `dead_letters` the URL of the dead-letter sink.

    `token` returns a service token for the sink.
    """

    def __init__(self, state: Path, dead_letters: str, memory: Memory, token: Callable[[], str]) -> None:
        self._token = token
        self._state = state
        self._dead_letters = dead_letters
        self._memory = memory

    async def spans(self, request: Request) -> Response:
        """Receive spans over OTLP/HTTP, with or without gzip."""
        body = await _body(request)
        if body is None:
            return _refusal(413, "The spans are too many for one request.")
        try:
            self._memory.take(decode(body))
        except NotSpans as error:
            return _refusal(400, str(error))
        return Response(b"", 200, media_type="application/x-protobuf")

    async def file(self, request: Request) -> Response:
        """Serve the page and its files."""
        name = request.path_params.get("name", "")
        if name not in _FILES:
            return _refusal(404, "This path is not found.")
        content = resources.files(__package__).joinpath("static", name or "console.html").read_bytes()
        return Response(content, 200, _HEADERS, _FILES[name])

    async def overview(self, _: Request) -> Response:
        """Return the parts with their processes and work, and the flow of events between them."""
        seen = self._memory.overview()
        running = self._running()
        parts = [
            {
                "name": name,
                "ready": part.get("ready", False),
                "pid": part.get("pid"),
                "restarts": part.get("restarts", 0),
                "url": part.get("url"),
                "work": seen["parts"].get(name),
            }
            for name, part in running.get("parts", {}).items()
        ]
        return JSONResponse({**seen, "parts": parts, "ready": running.get("ready", False)})

    async def orders(self, _: Request) -> Response:
        """Return the latest orders with their timelines."""
        return JSONResponse({"items": self._memory.orders()})

    async def trace(self, request: Request) -> Response:
        """Return one trace."""
        spans = self._memory.trace(request.path_params["id"])
        if spans is None:
            return _refusal(404, "This trace is not, or no longer, known here.")
        return JSONResponse({"items": spans})

    async def letters(self, _: Request) -> Response:
        """Return the pending dead letters."""
        return await self._ask("GET", "/entries?status=pending&limit=50")

    async def replay(self, request: Request) -> Response:
        """Replay one dead letter (`id`), or all of them (`all`)."""
        key = request.path_params["id"]
        return await self._ask("POST", "/replay" if key == "all" else f"/entries/{quote(key, safe='')}/replay")

    async def ready(self, _: Request) -> Response:
        """Respond to the readiness probe."""
        return Response(b"ok", media_type="text/plain")

    def _running(self) -> Mapping[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._state.read_text())
        except (OSError, ValueError):
            return {}
        return state

    async def _ask(self, method: str, path: str) -> Response:
        timeout = aiohttp.ClientTimeout(total=10)
        headers = {"authorization": f"Bearer {self._token()}"}
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, self._dead_letters + path, headers=headers) as answer,
            ):
                return Response(await answer.read(), answer.status, media_type=answer.content_type)
        except (aiohttp.ClientError, TimeoutError):
            return _refusal(503, "The broker does not answer.")


def create_app(
    state: Path, dead_letters: str, token: Callable[[], str], clock: Callable[[], float] = time.time
) -> Starlette:
    """Return the application; `clock` returns Unix time. See `Console` for the other parameters."""
    console = Console(state, dead_letters, Memory(clock), token)
    return Starlette(
        routes=[
            Route(OTLP_PATH, console.spans, methods=["POST"]),
            Route(READY_PATH, console.ready),
            Route("/console", console.file),
            Route("/console/api/overview", console.overview),
            Route("/console/api/orders", console.orders),
            Route("/console/api/traces/{id}", console.trace),
            Route("/console/api/dead-letters", console.letters),
            Route("/console/api/dead-letters/{id}/replay", console.replay, methods=["POST"]),
            Route("/console/{name}", console.file),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS, www_redirect=False), Middleware(Guard)],
    )


class Guard:
    """Middleware that refuses changes without the header `x-console`, which pages of other origins cannot set.

    Spans are accepted without this header. Query parameters are refused on every path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request."""
        reads = scope["type"] != "http" or scope["method"] in ("GET", "HEAD") or scope["path"] == OTLP_PATH
        app = self._app
        if not reads and Headers(scope=scope).get("x-console") != "1":
            app = _refusal(403, "Only the console itself may do this.")
        elif scope.get("query_string"):
            names = sorted({name for name, _ in QueryParams(scope["query_string"]).multi_items()})
            app = _refusal(400, f"No parameters are known here: {', '.join(names)[:200]}")
        await app(scope, receive, send)


def _refusal(status: int, detail: str) -> Response:
    body = {"type": "about:blank", "status": status, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")


async def _body(request: Request) -> bytes | None:
    """Return the decompressed body; None if it exceeds MAX_BODY, compressed or decompressed, or is incomplete."""
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > MAX_BODY:
            return None
    if request.headers.get("content-encoding") != "gzip":
        return bytes(chunks)
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = unpacker.decompress(bytes(chunks), MAX_BODY)
    except zlib.error:
        return b"\xff"  # invalid as protobuf, so the caller refuses it
    return plain if unpacker.eof else None
