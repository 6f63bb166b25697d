"""The span, the metric and the log line of each request."""

from __future__ import annotations

import logging
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.middleware.request_context import UNMATCHED, RequestContext
from observability import metrics, tracing
from observability.failpoints import failpoint

if TYPE_CHECKING:
    from observability.tracing import Span

log = logging.getLogger("shop.gateway")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST = tracing.SpanTemplate("HTTP", "SERVER")
"""The template of the span until the route is known."""
_CLIENT_CLOSED_REQUEST = 499


class AccessLogMiddleware:
    """Records the span, the metric and the log line of each request; successful requests are logged if `everything`."""

    def __init__(self, app: ASGIApp, everything: bool) -> None:
        self._app = app
        self._everything = everything
        self._observed: dict[tuple[str, str, int], metrics.Observed] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application within a span, then record how the request ended."""
        request_context: RequestContext | None = scope.get("request_context")
        if request_context is None:
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        method: str = scope["method"]
        if method == "HEAD" and not scope["path"].endswith("/stream"):
            scope = {**scope, "method": "GET"}  # the server omits the body
        with _REQUEST.span() as span:
            try:
                await self._app(scope, receive, send)
                failpoint("gateway.answer.after")
            finally:
                if "route" in scope:
                    request_context.route = scope["route"].path
                if span is not None:
                    _describe(span, method, scope["scheme"], request_context)
                self._record(perf_counter() - start, method, request_context)

    def _record(self, seconds: float, method: str, request_context: RequestContext) -> None:
        status = request_context.status or _CLIENT_CLOSED_REQUEST
        route = request_context.route
        if not request_context.streaming:
            # The labels are bounded: other methods become OTHER, and routes are templates.
            key = (method if method in _METHODS else "OTHER", route, status)
            observed = self._observed.get(key)
            if observed is None:
                labels = ("gateway", key[0], route, str(status))
                observed = self._observed[key] = metrics.Observed(metrics.HTTP, *labels)
            observed.observe(seconds)
        if (self._everything or status >= 400) and log.isEnabledFor(logging.INFO):
            extra = {"method": method, "route": route, "status": status, "duration_ms": round(seconds * 1000, 3)}
            if request_context.reason:
                extra["reason"] = request_context.reason
            if request_context.subject:
                extra["user_id"] = request_context.subject
            log.log(logging.ERROR if status >= 500 else logging.INFO, "request", extra=extra)


def _describe(span: Span, method: str, scheme: str, request_context: RequestContext) -> None:
    """Set OpenTelemetry's attributes of an HTTP server span, without path and query, which may be private."""
    span.template = _span_template(method if method in _METHODS else "_OTHER", request_context.route, scheme)
    if request_context.status:
        span.set_attribute("http.response.status_code", request_context.status)
    if request_context.status >= 500:
        tracing.mark_failed(span, request_context.reason or str(request_context.status))


@lru_cache(1024)
def _span_template(method: str, route: str, scheme: str) -> tracing.SpanTemplate:
    attributes: dict[str, tracing.Attribute] = {"http.request.method": method, "url.scheme": scheme}
    name = method if method != "_OTHER" else "HTTP"
    if route != UNMATCHED:  # the semantic conventions omit the attribute if there is no route
        attributes["http.route"] = route
        name = f"{name} {route}"
    return tracing.SpanTemplate(name, "SERVER", attributes)
