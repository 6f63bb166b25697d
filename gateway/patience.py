"""Who does not answer is not waited for by everybody."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from functions.runtime.errors import Code, ServiceError, unavailable

A = TypeVar("A")

MOST = 250
"""Calls of one method at once: a quarter of what the gateway takes in all, so that one slow answer leaves room."""
SILENCES = 5


class Patience:
    """Bounds what waits for one method of a service.

    At most `most` calls at once. After `silences` calls in a row that were not answered within their deadline only one
    at a time, to see whether the service is back. All others are refused at once, with UNAVAILABLE.
    """

    def __init__(self, most: int = MOST, silences: int = SILENCES) -> None:
        self._most = most
        self._silences = silences
        self._waiting = 0
        self._silent = 0

    def check(self) -> None:
        """Raises UNAVAILABLE where a call would wait in vain."""
        if self._silent >= self._silences and self._waiting:
            raise unavailable(
                "SERVICE_UNAVAILABLE", "A part of the platform does not answer.", retry_after=1.0
            )
        if self._waiting >= self._most:
            raise unavailable("OVERLOADED", "The platform is busy; try again shortly.", retry_after=1.0)

    async def wait(self, call: Awaitable[A]) -> A:
        """The answer to a call that has just been checked."""
        self._waiting += 1
        try:
            answer = await call
        except ServiceError as error:
            is_silence = error.code is Code.DEADLINE_EXCEEDED or error.reason == "SERVICE_UNAVAILABLE"
            self._silent = self._silent + 1 if is_silence else 0
            raise
        else:
            self._silent = 0
            return answer
        finally:
            self._waiting -= 1
