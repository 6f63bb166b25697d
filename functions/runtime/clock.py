"""Time as a collaborator."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol


def sortable(at: datetime) -> str:
    """Return an aware time as text that sorts as the time does, for keys of an index."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The present, in UTC, aware."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present, in UTC, aware."""
        return datetime.now(UTC)


class ManualClock:
    """A clock for tests: it moves only when told."""

    def __init__(self, at: datetime | None = None) -> None:
        self._now = at or datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """The time last set."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move on."""
        self._now += by
