"""Clocks. They are passed to the code that uses them, so that tests can set the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol


def sortable(at: datetime) -> str:
    """Return a time-zone-aware time as text whose alphabetical order is the order of time, for index keys."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


class Clock(Protocol):
    """A source of the current time."""

    def now(self) -> datetime:
        """Return the current time, time-zone-aware in UTC."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the current time, time-zone-aware in UTC."""
        return datetime.now(UTC)


class ManualClock:
    """A clock for tests. Its time changes only when `advance` is called."""

    def __init__(self, at: datetime | None = None) -> None:
        self._now = at or datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """Return the time that was set last."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move the clock forward."""
        self._now += by
