"""A circuit breaker, for what lies outside the platform: who is down is asked rarely instead of by every request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from functions.runtime.errors import TRANSIENT, ServiceError
from observability import metrics

R = TypeVar("R")

CLOSED, PROBING, OPEN = 0.0, 0.5, 1.0


class CircuitBreaker:
    """Refuses calls at once after `failures` passing faults in a row (ServiceErrors that are transient).

    It stays open for `seconds`; then one call is let through to see, and how that ends decides. A refusal is the last
    fault again, with the seconds that are left as its `retry_after`. `circuit` names it in the metrics.
    """

    def __init__(
        self,
        circuit: str,
        *,
        failures: int = 5,
        seconds: float = 15.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = failures
        self._seconds = seconds
        self._now = now
        self._failed = 0
        self._fault: ServiceError | None = None
        self._tried_at = 0.0
        self._state = metrics.CIRCUITS.labels(circuit)
        self._state.set(CLOSED)
        self._probing = False

    async def call(self, work: Callable[[], Awaitable[R]]) -> R:
        """What `work` gives. Raises what it raises, or the refusal."""
        self._admit()
        try:
            result = await work()
        except ServiceError as error:
            if error.code in TRANSIENT:
                self._count(error)
            else:
                self._close()
            raise
        except asyncio.CancelledError:
            self._probing = False  # nobody waited for the answer: the next one sees
            raise
        except Exception:
            self._close()  # whatever it said, it answered
            raise
        self._close()
        return result

    def _admit(self) -> None:
        fault = self._fault
        if fault is None:
            return
        left = self._tried_at - self._now()
        if left > 0 or self._probing:
            raise ServiceError(fault.code, fault.reason, fault.message, retry_after=max(left, 1.0))
        self._probing = True
        self._state.set(PROBING)

    def _count(self, error: ServiceError) -> None:
        self._failed += 1
        if self._failed >= self._most:
            self._fault, self._tried_at, self._probing = error, self._now() + self._seconds, False
            self._state.set(OPEN)

    def _close(self) -> None:
        self._failed, self._fault, self._probing = 0, None, False
        self._state.set(CLOSED)
