"""The one wrapper around everything the gateway answers, in plain ASGI: what every request needs, paid for once.

Correlation and trace context, limits by address and in all, the access line, the metric, the headers that every answer
carries, and the one place where an error becomes a problem document.
"""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.runtime import identity
from functions.runtime.errors import ServiceError, invalid
from gateway.limits import address_key, client_address, rate_headers
from gateway.middleware.access_log import METHODS, AccessLog
from gateway.middleware.request_context import UNMATCHED, AppState, RequestContext
from gateway.problems import INTERNAL, TOO_LATE, HttpError, problem, reason_of
from gateway.routing import RouteWithoutAccess
from observability import context, tracing
from observability.failpoints import failpoint
from observability.headers import combine

if TYPE_CHECKING:
    from observability.tracing import Span

log = logging.getLogger("shop.gateway")

PROBES = frozenset({"/healthz/live", "/healthz/ready", "/metrics"})
_REQUEST = tracing.SpanTemplate("HTTP", "SERVER")  # before its route is known
_SECURITY = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_CSP_NAME = b"content-security-policy"
_CSP = (_CSP_NAME, b"default-src 'none'; frame-ancestors 'none'")
MOST_HEADERS, MOST_PARAMETERS = 100, 50
_CLOSE = {"connection": "close"}
_SINGLE = frozenset(
    (
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"idempotency-key",
        b"last-event-id",
        b"origin",
        b"stripe-signature",
        b"x-api-key",
    )
)
"""Fields that decide something and are no lists. A second traceparent or correlation id is malformed, and made anew."""
_LAST = (b"connection", b"close")
_HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")


class Edge:
    """The wrapper; within it, `scope["request_context"]` is the request's RequestContext."""

    def __init__(self, app: ASGIApp, gateway: AppState) -> None:
        self._app = app
        self._gateway = gateway
        stated = gateway.settings.client_address_header.lower().encode()
        self._forwarded = stated or b"x-forwarded-for"
        self._hops = 1 if stated else gateway.settings.trusted_proxy_hops
        self._lines = AccessLog(gateway.settings.access_log)
        in_production = gateway.settings.shop_env == "production"
        self._headers = [*_SECURITY, _HSTS] if in_production else _SECURITY

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the module."""
        if scope["type"] == "http" and scope["path"] not in PROBES:
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = perf_counter()
        method: str = scope["method"]
        if method == "HEAD" and not scope["path"].endswith("/stream"):
            scope = {**scope, "method": "GET"}  # the server leaves the body out
        request_context = self._enter(scope)
        send = self._finishing(request_context, send)
        with _REQUEST.span() as span:
            try:
                await self._guarded(request_context, scope, receive, send)
                failpoint("gateway.answer.after")
            finally:
                if "route" in scope:
                    request_context.route = scope["route"].path
                if span is not None:
                    _describe(span, method, scope["scheme"], request_context)
                self._lines.write(start, method, request_context)

    def _enter(self, scope: Scope) -> RequestContext:
        headers, repeated = dict(scope["headers"]), ""
        if len(headers) != len(scope["headers"]) <= MOST_HEADERS:
            repeated = _repeated(scope["headers"])
            headers = combine(scope["headers"], b", ")
            scope["headers"] = list(headers.items())  # what comes after sees each field once
        # Taken over when well formed. Whatever else the outside claims about identity goes no further: calls carry what
        # `GrpcClient.metadata` makes, and nothing of the request's headers.
        sent = (headers.get(b"x-correlation-id"), headers.get(b"traceparent"), headers.get(b"tracestate"))
        context.enter(context.incoming(*[value and value.decode("latin-1") for value in sent]))
        identity.enter(identity.ANONYMOUS)
        client = scope.get("client")
        peer = client[0] if client else "unknown"
        if self._hops:
            peer = client_address(peer, headers.get(self._forwarded, b""), self._hops)
        request_context = scope["request_context"] = RequestContext(self._gateway, headers, peer)
        request_context.repeated = repeated
        return request_context

    def _finishing(self, request_context: RequestContext, send: Send) -> Send:
        """`send`, adding what every answer carries."""
        correlation = (b"x-correlation-id", context.current().correlation_id.encode())

        async def finish(message: Message) -> None:
            if message["type"] == "http.response.start":
                failpoint("gateway.answer.before")
                if not request_context.access and message["status"] < 400:
                    raise RouteWithoutAccess("an answer of a route that does not say who may call it")
                request_context.status = message["status"]
                headers = [*message["headers"], correlation, *self._headers]
                if request_context.counted:
                    headers += rate_headers(request_context.counted)
                if self._gateway.draining.is_set():
                    headers.append(_LAST)
                if not any(name == _CSP_NAME for name, _ in headers):
                    headers.append(_CSP)
                message["headers"] = headers
            await send(message)

        return finish

    async def _guarded(
        self, request_context: RequestContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            await self._limited(request_context, scope, receive, send)
        except ServiceError as error:
            await _refuse(error, request_context, scope, receive, send)
        except TimeoutError:
            await _refuse(TOO_LATE, request_context, scope, receive, send)
        except ClientDisconnect:
            request_context.reason = "CLIENT_GONE"
        except asyncio.CancelledError:
            request_context.reason = "CANCELLED"
            raise
        except Exception:
            log.exception("request_crashed", extra={"route": request_context.route})
            await _refuse(INTERNAL, request_context, scope, receive, send)

    async def _limited(
        self, request_context: RequestContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        gateway = self._gateway
        request_context.count(gateway.addresses, address_key(request_context.address))
        _check_head(scope, gateway.settings.max_header_bytes)
        if request_context.repeated:
            raise invalid(
                "A header that has one value came twice.", (request_context.repeated, "must be given once")
            )
        await self._app(scope, receive, send)


def _check_head(scope: Scope, most: int) -> None:
    """Bounds of what came in one piece, which the server's protocol does not see: bytes, headers, parameters."""
    headers, query = scope["headers"], scope["query_string"]
    size = len(query)
    for name, value in headers:
        size += len(name) + len(value)
    if size > most or len(headers) > MOST_HEADERS:
        raise HttpError(431, "HEADERS_TOO_LARGE", "The headers are too large.", headers=_CLOSE)
    if query.count(b"&") >= MOST_PARAMETERS:
        raise HttpError(414, "QUERY_TOO_LARGE", f"At most {MOST_PARAMETERS} parameters.", headers=_CLOSE)


def _repeated(lines: list[tuple[bytes, bytes]]) -> str:
    """The first field that came more than once, though it is no list; empty: there is none."""
    seen: set[bytes] = set()
    for name, _ in lines:
        if name in seen and name in _SINGLE:
            return name.decode().title()
        seen.add(name)
    return ""


def _describe(span: Span, method: str, scheme: str, request_context: RequestContext) -> None:
    """What the conventions want of an HTTP server's span. No path and no query: they may hold what is private."""
    span.template = _operation(method if method in METHODS else "_OTHER", request_context.route, scheme)
    if request_context.status:
        span.set_attribute("http.response.status_code", request_context.status)
    if request_context.status >= 500:
        tracing.mark_failed(span, request_context.reason or str(request_context.status))


@lru_cache(1024)
def _operation(method: str, route: str, scheme: str) -> tracing.SpanTemplate:
    attributes: dict[str, tracing.Attribute] = {"http.request.method": method, "url.scheme": scheme}
    name = method if method != "_OTHER" else "HTTP"
    if route != UNMATCHED:  # the conventions want no route where there is none
        attributes["http.route"] = route
        name = f"{name} {route}"
    return tracing.SpanTemplate(name, "SERVER", attributes)


async def _refuse(
    error: ServiceError, request_context: RequestContext, scope: Scope, receive: Receive, send: Send
) -> None:
    request_context.reason = reason_of(error)
    if request_context.status:
        raise RuntimeError("the answer had begun")  # the server breaks the connection off
    conditional = b"if-match" in request_context.headers
    await problem(error, conditional)(scope, receive, send)
