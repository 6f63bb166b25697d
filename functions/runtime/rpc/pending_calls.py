"""Limits, in time and number, of calls whose request message has not arrived yet.

A gRPC call exists as soon as its HEADERS frame arrives. A client may open thousands of calls on one connection and
never send a message. Such half-open calls are counted here, and not against the limit of running calls.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from functions.runtime.errors import ServiceError, exhausted, invalid

WAITING_CALLS = 1_000
MESSAGE_SECONDS = 5.0


class PendingCalls:
    """Receives request messages. Each must arrive within `seconds`, and at most `limit` calls wait at a time.

    At the limit, the oldest pending call of the peer with the most pending calls is refused. So a peer that keeps
    opening calls displaces its own calls, and a call whose message arrives at once is not affected.
    """

    def __init__(self, limit: int = WAITING_CALLS, seconds: float = MESSAGE_SECONDS) -> None:
        self._limit = limit
        self._seconds = seconds
        self._count = 0
        self._pending: dict[str, dict[asyncio.Timeout, float]] = {}  # by peer; the values are times of the loop
        self._displaced: set[asyncio.Timeout] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def receive(self, call: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Return the request message of `call`, or None if its bytes cannot be parsed.

        Raises INVALID_ARGUMENT (MESSAGE_MISSING), RESOURCE_EXHAUSTED (TOO_MANY_CALLS).
        """
        peer = address(call.peer())
        if self._count >= self._limit:
            self._displace()
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._expire, loop)
        timeout = asyncio.timeout(None)  # a timer for each call would cost a tenth of the call
        try:
            async with timeout:
                waiting = self._pending.setdefault(peer, {})
                waiting[timeout] = loop.time() + self._seconds
                self._count += 1
                try:
                    request = await call.read()
                finally:
                    self._remove(peer, timeout)
        except TimeoutError:
            raise self._refusal(timeout) from None
        self._displaced.discard(timeout)  # the message arrived just when the call was displaced
        if request is grpc.aio.EOF:
            raise invalid("The call has no message.", reason="MESSAGE_MISSING")
        return request

    def _displace(self) -> None:
        largest = max(self._pending.values(), key=len)
        oldest = next((each for each in largest if each not in self._displaced and not each.expired()), None)
        if oldest is not None:
            self._displaced.add(oldest)
            oldest.reschedule(asyncio.get_running_loop().time())

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the calls that have waited for too long, and set the timer for the next one."""
        now, oldest = loop.time(), list[float]()
        for waiting in self._pending.values():
            for timeout, ends_at in waiting.items():
                if ends_at > now:
                    oldest.append(ends_at)
                    break
                if not timeout.expired():
                    timeout.reschedule(now)
        self._timer = loop.call_at(min(oldest), self._expire, loop) if oldest else None

    def _remove(self, peer: str, timeout: asyncio.Timeout) -> None:
        waiting = self._pending[peer]
        del waiting[timeout]
        self._count -= 1
        if not waiting:
            del self._pending[peer]

    def _refusal(self, timeout: asyncio.Timeout) -> ServiceError:
        if timeout in self._displaced:
            self._displaced.remove(timeout)
            return exhausted("TOO_MANY_CALLS", "Too many calls wait for their message.", retry_after=1.0)
        return invalid(f"The message did not arrive within {self._seconds:g} s.", reason="MESSAGE_MISSING")


def address(peer: str) -> str:
    """Return the network address of a peer without its port: `ipv4:192.0.2.1` of `ipv4:192.0.2.1:50000`."""
    return peer.rpartition(":")[0]
