"""The headers of every response, and the check that its route states who may call it."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.app_state import AppState
from gateway.limits import rate_headers
from gateway.middleware.request_context import RequestContext
from gateway.routing import RouteWithoutAccess
from observability import context
from observability.failpoints import failpoint

_SECURITY = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
_CSP = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_CLOSE = (b"connection", b"close")


class ResponseHeadersMiddleware:
    """Adds the correlation id, the rate limit headers, and the security headers for browsers."""

    def __init__(self, app: ASGIApp, state: AppState) -> None:
        self._app = app
        self._draining = state.draining
        self._headers = [*_SECURITY, _HSTS] if state.settings.shop_env == "production" else _SECURITY

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and add the headers to its response."""
        request_context: RequestContext | None = scope.get("request_context")
        if request_context is None:
            await self._app(scope, receive, send)
            return
        correlation = (b"x-correlation-id", context.current().correlation_id.encode())

        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                failpoint("gateway.answer.before")
                if request_context.access is None and message["status"] < 400:
                    raise RouteWithoutAccess("the response of a route that does not state who may call it")
                request_context.status = message["status"]
                headers = [*message["headers"], correlation, *self._headers]
                if request_context.counted:
                    headers += rate_headers(request_context.counted)
                if self._draining.is_set():
                    headers.append(_CLOSE)
                if _CSP[0] not in dict(headers):
                    headers.append(_CSP)
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, complete)
