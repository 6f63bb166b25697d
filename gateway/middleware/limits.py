"""Limits that are checked on the head of a request: the rate of its address, sizes, repeated headers."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from functions.runtime.errors import invalid
from functions.runtime.networks import network_key
from gateway.middleware.request_context import MAX_HEADERS, RequestContext
from gateway.problems import HttpError

MAX_PARAMETERS = 50
_CLOSE = {"connection": "close"}


class LimitsMiddleware:
    """Refuses requests that exceed a limit, before routing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application unless a limit is exceeded. Raises ServiceError."""
        request_context: RequestContext | None = scope.get("request_context")
        if request_context is not None:
            state = request_context.state
            request_context.count(state.address_rates, network_key(request_context.address))
            _check_head(scope, state.settings.max_header_bytes)
            if repeated := request_context.repeated_header:
                raise invalid("A header that has one value came twice.", (repeated, "must be given once"))
        await self._app(scope, receive, send)


def _check_head(scope: Scope, max_bytes: int) -> None:
    """Check the size of a complete head; the server's protocol measures only incomplete heads."""
    headers, query = scope["headers"], scope["query_string"]
    size = len(query)
    for name, value in headers:
        size += len(name) + len(value)
    if size > max_bytes or len(headers) > MAX_HEADERS:
        raise HttpError(431, "HEADERS_TOO_LARGE", "The headers are too large.", headers=_CLOSE)
    if query.count(b"&") >= MAX_PARAMETERS:
        raise HttpError(414, "QUERY_TOO_LARGE", f"At most {MAX_PARAMETERS} parameters.", headers=_CLOSE)
