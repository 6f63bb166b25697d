"""What is shared by all requests, and what one request gathers on its way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from functions.runtime.key_set import KeySetCache
from functions.runtime.tokens import TokenVerifier
from gateway.clients import Clients
from gateway.limits import ConcurrencyLimiter, Counted, TokenBuckets
from gateway.settings import Settings

UNMATCHED = "unmatched"
"""What logs and metrics call the route of a request that has none."""

if TYPE_CHECKING:
    from starlette.requests import Request


@dataclass
class AppState:
    """The composed gateway: the collaborators of every route."""

    settings: Settings
    clients: Clients
    verifier: TokenVerifier
    keys: KeySetCache
    addresses: TokenBuckets
    users: TokenBuckets
    exports: TokenBuckets
    slots: ConcurrencyLimiter
    """Requests at work."""
    callers: ConcurrencyLimiter
    """Requests that came, by network address, whether or not their body is there."""
    streams: ConcurrencyLimiter
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is asked to stop: streams end, ready turns false."""


class RequestContext:
    """One request on its way; at `scope["request_context"]`."""

    __slots__ = (
        "access",
        "address",
        "counted",
        "gateway",
        "headers",
        "reason",
        "repeated",
        "route",
        "status",
        "streaming",
        "subject",
    )

    def __init__(self, gateway: AppState, headers: dict[bytes, bytes], address: str) -> None:
        self.gateway = gateway
        self.headers = headers
        """Lower-case names; lines of the same name are combined."""
        self.repeated = ""
        """A header that must not come twice and did; empty: none."""
        self.access = ""
        """Who may call the matched route; empty: no route has decided, so no answer but a refusal may leave."""
        self.address = address
        """The caller's network address, as far as it is known."""
        self.counted: list[Counted] = []
        """The limits that it counts towards."""
        self.route = UNMATCHED
        """The matched route's template."""
        self.status = 0
        self.reason = ""
        self.subject = ""
        self.streaming = False

    def count(self, buckets: TokenBuckets, key: str) -> None:
        """Take a token; raises RESOURCE_EXHAUSTED (RATE_LIMITED). Either way the answer says how many are left."""
        self.counted.append((buckets, key))
        buckets.consume(key)

    def charge(self, cost: int) -> None:
        """Count this request as `cost` ordinary ones, for its address and its caller; at most as all that fit in.

        Raises RESOURCE_EXHAUSTED (RATE_LIMITED).
        """
        for buckets, key in self.counted:
            further = min(cost, buckets.burst) - 1
            if further and buckets is not self.gateway.exports:
                buckets.consume(key, further)


def request_context_of(request: Request) -> RequestContext:
    """The exchange that a request belongs to."""
    request_context: RequestContext = request.scope["request_context"]
    return request_context


def clients_of(request: Request) -> Clients:
    """The services behind the gateway."""
    request_context: RequestContext = request.scope["request_context"]
    return request_context.gateway.clients
