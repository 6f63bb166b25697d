"""Limits of requests: their rate, how many run at the same time, and the size of their heads."""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from functions.runtime.errors import Code, ServiceError, invalid, unavailable
from functions.runtime.networks import network_key
from gateway.problems import HttpError

if TYPE_CHECKING:
    from gateway.middleware.request_context import RequestContext

SEARCH_COST, PASSWORD_COST, EXPORT_COST = 10, 20, 50
"""Costs of a request, counted in ordinary requests.

They follow the CPU time of the whole platform: reading a product takes about 1 ms, a search 14 ms, hashing a password
20 ms.
"""


class TokenBuckets:
    """A token bucket for each key, stored as the time at which the bucket is full again (GCRA).

    A bucket gains `rate` tokens a second and holds at most `burst`. Only the `size` most recently used keys are kept. A
    key that was dropped starts again with a full bucket.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        size: int = 50_000,
        now: Callable[[], float] = time.monotonic,
        name: str = "default",
    ) -> None:
        self._interval = 1 / rate
        self.burst = burst
        self._tolerance = (burst - 1) / rate
        self._size = size
        self._now = now
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self.name = name.encode()
        policy = f'"{name}";q={burst};w={max(1, round(burst / rate))}'
        self.policy = (b"ratelimit-policy", policy.encode())

    def consume(self, key: str, tokens: int = 1) -> None:
        """Consume tokens. Raises RESOURCE_EXHAUSTED (RATE_LIMITED) with the seconds until there are enough."""
        now = self._now()
        full_at = max(self._full_at.get(key, now), now)
        further = (tokens - 1) * self._interval
        wait = full_at + further - now - self._tolerance
        if wait > 1e-9:  # rounding errors of floats
            raise self._refusal(wait)
        self._full_at[key] = full_at + further + self._interval
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._size:
            self._full_at.popitem(last=False)

    def left(self, key: str) -> tuple[int, int]:
        """Return how many tokens are left, and in how many seconds the bucket is full again."""
        until_full = self._full_at.get(key, 0.0) - self._now()
        if until_full <= 0:
            return self.burst, 0
        taken = math.ceil(until_full / self._interval - 1e-6)  # rounding errors of floats
        return max(0, self.burst - taken), math.ceil(until_full)

    def _refusal(self, wait: float) -> HttpError:
        return HttpError(
            429, "RATE_LIMITED", "Too many requests; slow down.", code=Code.RESOURCE_EXHAUSTED, retry_after=wait
        )


Counted = tuple[TokenBuckets, str]
"""The bucket and key that a request counted towards."""


def rate_headers(counted: list[Counted]) -> list[tuple[bytes, bytes]]:
    """Return the headers of the limit with the fewest tokens left (draft-ietf-httpapi-ratelimit-headers).

    In RateLimit, `r` requests are left now, and all are available again in `t` seconds. `q` in RateLimit-Policy is the
    number of all.
    """
    closest, left = counted[0][0], counted[0][0].left(counted[0][1])
    for buckets, key in counted[1:]:
        other = buckets.left(key)
        if other < left:
            closest, left = buckets, other
    return [closest.policy, (b"ratelimit", b'"%b";r=%d;t=%d' % (closest.name, *left))]


class ConcurrencyLimiter:
    """A limit on concurrent holds: `most` in total, `each` for one holder. Further holds are refused, not queued."""

    def __init__(self, most: int, reason: str, each: int | None = None) -> None:
        self._most = most
        self._each = most if each is None else each
        self._reason = reason
        self._held: Counter[str] = Counter()
        self.active = 0

    def acquire(self, holder: str = "") -> None:
        """Take a hold; the caller must `release` it. Raises UNAVAILABLE at the limit, in total or of this holder."""
        if self.active >= self._most or self._held[holder] >= self._each:
            raise self.refusal()
        self.active += 1
        self._held[holder] += 1

    def release(self, holder: str = "") -> None:
        """Release a hold."""
        self.active -= 1
        self._held[holder] -= 1
        if not self._held[holder]:
            del self._held[holder]

    @contextmanager
    def hold(self, holder: str = "") -> Iterator[None]:
        """Hold within the block. Raises as `acquire` does."""
        self.acquire(holder)
        try:
            yield
        finally:
            self.release(holder)

    def refusal(self) -> ServiceError:
        """Return the error of a refused hold."""
        return unavailable(self._reason, "The platform is busy; try again shortly.")


MAX_HEADERS = 100
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
    """Raise HttpError: 431 for too many or too large headers, 414 for too many query parameters.

    The server's protocol (`gateway.server`) measures only heads that have not arrived completely.
    """
    headers, query = scope["headers"], scope["query_string"]
    size = len(query)
    for name, value in headers:
        size += len(name) + len(value)
    if size > max_bytes or len(headers) > MAX_HEADERS:
        raise HttpError(431, "HEADERS_TOO_LARGE", "The headers are too large.", headers=_CLOSE)
    if query.count(b"&") >= MAX_PARAMETERS:
        raise HttpError(414, "QUERY_TOO_LARGE", f"At most {MAX_PARAMETERS} parameters.", headers=_CLOSE)
