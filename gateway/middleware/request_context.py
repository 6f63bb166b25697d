"""The context of a request, and the API's outermost middleware, which creates it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from functions.runtime import identity
from gateway.app_state import AppState
from gateway.limits import MAX_HEADERS
from observability import context
from observability.headers import combine

if TYPE_CHECKING:
    from gateway.limits import Counted, TokenBuckets
    from gateway.routing import Access


def client_address(peer: str, forwarded: bytes, hops: int) -> str:
    """Return the network address of the caller.

    `hops` is the number of trusted proxies in front of the gateway. Without proxies, the caller is `peer`. Otherwise
    each proxy has appended one address to X-Forwarded-For, so the caller is the `hops`-th entry from the right. Entries
    to the left of it are ignored, because the caller can forge them. If the header is missing, too short or has no
    valid address there, return `peer`.
    """
    if not hops or not forwarded:
        return peer
    entries = forwarded.decode("latin-1").split(",")
    if len(entries) < hops:
        return peer
    given = entries[-hops].strip()
    if given.count(":") == 1:
        given = given.partition(":")[0]  # IPv4 with a port, as some proxies write it
    try:
        return str(ipaddress.ip_address(given.strip("[]")))
    except ValueError:
        return peer


UNMATCHED = "unmatched"
"""The route of a request that no route matches, in logs and metrics."""
PROBES = frozenset({"/healthz/live", "/healthz/ready", "/metrics"})
_SINGLE_VALUED = frozenset(
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
"""Fields that affect the result and are not lists. A repeated traceparent is malformed, and is replaced instead."""


class RequestContext:
    """The context of one request, in `scope["request_context"]`. Probes and the server's lifespan have none."""

    __slots__ = (
        "access",
        "address",
        "counted",
        "headers",
        "reason",
        "repeated_header",
        "route",
        "state",
        "status",
        "streaming",
        "subject",
    )

    def __init__(self, state: AppState, headers: Mapping[bytes, bytes], address: str) -> None:
        self.state = state
        self.headers = headers
        """The headers by lower-case name; lines with the same name are combined."""
        self.repeated_header = ""
        """The name of a header that was repeated but must not be; empty if there is none."""
        self.access: Access | None = None
        """The access of the matched route. Until a route has set it, only error responses are allowed."""
        self.address = address
        """The caller's network address, or `unknown`."""
        self.counted: list[Counted] = []
        """The rate limits that the request counts towards."""
        self.route = UNMATCHED
        """The matched route's template."""
        self.status = 0
        """The status of the response once it has begun."""
        self.reason = ""
        """The reason of an error response."""
        self.subject = ""
        """The signed-in user's id."""
        self.streaming = False
        """Whether the client determines how long the response lasts; its duration is not measured."""

    def count(self, rates: TokenBuckets, key: str) -> None:
        """Consume one token of `key`; the response's headers show how many are left, even after an error.

        Raises RESOURCE_EXHAUSTED (RATE_LIMITED).
        """
        self.counted.append((rates, key))
        rates.consume(key)

    def charge(self, cost: int) -> None:
        """Count this request as `cost` ordinary requests of its address and its caller.

        In each of the two buckets it takes at most as many tokens as a full bucket has.

        Raises RESOURCE_EXHAUSTED (RATE_LIMITED).
        """
        for rates, key in self.counted:
            further = min(cost, rates.burst) - 1
            if further and rates is not self.state.export_rates:
                rates.consume(key, further)


class RequestContextMiddleware:
    """Creates the RequestContext, and adopts the caller's correlation id and trace if they are well formed.

    No other header of the request reaches the services, because `GrpcClient.metadata` does not use the request's
    headers.
    """

    def __init__(self, app: ASGIApp, state: AppState) -> None:
        self._app = app
        self._state = state
        settings = state.settings
        stated = settings.client_address_header.lower().encode()
        self._address_header = stated or b"x-forwarded-for"
        self._hops = 1 if stated else settings.trusted_proxy_hops

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application in a new context; refuse websockets."""
        if scope["type"] == "http" and scope["path"] not in PROBES:
            self._enter(scope)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    def _enter(self, scope: Scope) -> None:
        headers, repeated = dict(scope["headers"]), ""
        if len(headers) != len(scope["headers"]) <= MAX_HEADERS:
            repeated = _repeated(scope["headers"])
            headers = combine(scope["headers"], b", ")
            scope["headers"] = list(headers.items())
        sent = (headers.get(b"x-correlation-id"), headers.get(b"traceparent"), headers.get(b"tracestate"))
        context.enter(context.incoming(*[value and value.decode("latin-1") for value in sent]))
        identity.enter(identity.ANONYMOUS)
        client = scope.get("client")
        address = client[0] if client else "unknown"
        if self._hops:
            address = client_address(address, headers.get(self._address_header, b""), self._hops)
        request_context = scope["request_context"] = RequestContext(self._state, headers, address)
        request_context.repeated_header = repeated


def _repeated(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the first single-valued field that occurs more than once, or an empty string."""
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in seen and name in _SINGLE_VALUED:
            return name.decode().title()
        seen.add(name)
    return ""
