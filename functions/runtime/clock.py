"""Clocks, which are passed in so that tests can set the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol


def sortable(at: datetime) -> str:
    """Return an aware time as text that sorts as the time does, for keys of an index."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


class Clock(Protocol):
    """Returns the time."""

    def now(self) -> datetime:
        """Return the time in UTC, aware."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the time in UTC, aware."""
        return datetime.now(UTC)


class ManualClock:
    """A clock for tests, which moves only by `advance`."""

    def __init__(self, at: datetime | None = None) -> None:
        self._now = at or datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """Return the time last set."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move the clock forward."""
        self._now += by
