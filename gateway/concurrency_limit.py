"""A limit on what runs at the same time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from functions.runtime.errors import ServiceError, unavailable


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
