"""A circuit breaker: it stops calls to a dependency that keeps failing, and probes with single calls for recovery."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from functions.runtime.errors import TRANSIENT, ServiceError
from observability import metrics

R = TypeVar("R")

CLOSED, PROBING, OPEN = 0.0, 0.5, 1.0
"""Values of the metric `shop_circuit_open`."""


def is_transient(error: ServiceError) -> bool:
    """Return whether the same call may succeed later."""
    return error.code in TRANSIENT


def repeat_failure(error: ServiceError, seconds: float) -> ServiceError:
    """Return an error that repeats the dependency's last failure and asks for a retry after `seconds`."""
    return ServiceError(error.code, error.reason, error.message, retry_after=max(seconds, 1.0))


class CircuitBreaker:
    """Refuses calls at once after `failures` consecutive failures.

    The circuit stays open for `seconds`. Then one call at a time is let through as a probe: if it succeeds, the circuit
    closes; if it fails, the circuit stays open for another `seconds`. `is_failure` selects the ServiceErrors that count
    as failures; any other outcome proves that the dependency answers, and closes the circuit. `refuse` makes the error
    of a refused call from the last failure and the seconds left. `name` labels the metric; without a name there is no
    metric.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        failures: int = 5,
        seconds: float = 15.0,
        is_failure: Callable[[ServiceError], bool] = is_transient,
        refuse: Callable[[ServiceError, float], ServiceError] = repeat_failure,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = failures
        self._seconds = seconds
        self._is_failure = is_failure
        self._refuse = refuse
        self._now = now
        self._failures = 0
        self._last_failure: ServiceError | None = None  # None: the circuit is closed
        self._probe_at = 0.0
        self._probing = False
        self._gauge = None if name is None else metrics.CIRCUITS.labels(name)
        self._show(CLOSED)

    def allow(self) -> bool:
        """Return whether the next call is a probe. Raises the error that `refuse` makes while the circuit is open."""
        failure = self._last_failure
        if failure is None:
            return False
        left = self._probe_at - self._now()
        if left > 0 or self._probing:
            raise self._refuse(failure, max(left, 0.0))
        self._probing = True
        self._show(PROBING)
        return True

    async def call(self, work: Callable[[], Awaitable[R]]) -> R:
        """Call `work` and return its result. Raises any error of `work`, or the refusal while the circuit is open."""
        is_probe = self.allow()
        try:
            result = await work()
        except asyncio.CancelledError:  # a cancelled call says nothing about the dependency
            self._probing = self._probing and not is_probe
            raise
        except Exception as error:
            if isinstance(error, ServiceError) and self._is_failure(error):
                self._fail(error, is_probe)
            else:
                self._close()
            raise
        self._close()
        return result

    def _fail(self, error: ServiceError, is_probe: bool) -> None:
        self._failures += 1
        self._probing = self._probing and not is_probe
        if self._failures >= self._limit:
            self._last_failure, self._probe_at = error, self._now() + self._seconds
            self._show(OPEN)

    def _close(self) -> None:
        if self._failures:
            self._failures, self._last_failure, self._probing = 0, None, False
            self._show(CLOSED)

    def _show(self, state: float) -> None:
        if self._gauge is not None:
            self._gauge.set(state)
