"""Rate limits: token buckets by key, and the headers that show what is left."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from functions.runtime.errors import Code
from gateway.problems import HttpError

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

    `r` requests are left now, and in `t` seconds all `q` are available again.
    """
    closest, left = counted[0][0], counted[0][0].left(counted[0][1])
    for buckets, key in counted[1:]:
        other = buckets.left(key)
        if other < left:
            closest, left = buckets, other
    return [closest.policy, (b"ratelimit", b'"%b";r=%d;t=%d' % (closest.name, *left))]
