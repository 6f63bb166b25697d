"""A proxy for the local platform's console: requests for `/console` go to CONSOLE_URL, without the API's middleware.

It is only for development: if CONSOLE_URL is not set, or SHOP_ENV is production, there is no such path.
"""

from __future__ import annotations

from typing import Final

import aiohttp
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from yarl import URL

PATH: Final = "/console"
_PASSED: Final = ("host", "x-console", "content-type")
_SECONDS: Final = 10


class ConsoleProxy:
    """Forwards requests for `/console` to the console, and all others to `app`."""

    def __init__(self, app: ASGIApp, url: str) -> None:
        self._app = app
        self._url = url.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request to the console, or run the application."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == PATH or path.startswith(f"{PATH}/")):
            await self._app(scope, receive, send)
            return
        answer = await self._pass_on(Request(scope))
        await answer(scope, receive, send)

    async def _pass_on(self, request: Request) -> Response:
        """Forward a request without its body: the console's requests have none."""
        headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        query = request.scope["query_string"]
        target = request.scope["raw_path"] + (b"?" + query if query else b"")
        url = URL(self._url + target.decode("latin-1"), encoded=True)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
                session.request(request.method, url, headers=headers) as answer,
            ):
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in ("date", "server")}
                return Response(await answer.read(), answer.status, kept)
        except (aiohttp.ClientError, TimeoutError):
            return Response(b"The console does not answer; its log is console.log.", 503, media_type="text/plain")
