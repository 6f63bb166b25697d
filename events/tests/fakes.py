"""A store's outbox in memory, and brokers that are flaky, slow or away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from events.outbox import Outbox, OutboxLimits, OutboxRow

START = datetime(2030, 1, 1, tzinfo=UTC)
QUICK = OutboxLimits(parallel=4, held=10, attempts=3, first_pause=0.001, longest_pause=0.004, gather=0.05)
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class ManualClock:
    """Moved by the test."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time


def row(number: int, time: datetime = START) -> OutboxRow:
    """An event told apart by its number."""
    subject = f"ord_{number:032x}"
    return OutboxRow(
        f"{number:08}",
        "shop.order.shipped.v1",
        "/orders",
        subject,
        time,
        b"{}",
        f"correlation-{number}",
        TRACE,
        "",
    )


class FakeOutboxStore:
    """A store's outbox; `fails` is how many calls fail next."""

    def __init__(self, *rows: OutboxRow) -> None:
        self.rows = {row.id: row for row in rows}
        self.fails = 0
        self.removals: list[int] = []
        self.reads = 0
        self._listeners: list[Callable[[Sequence[OutboxRow]], None]] = []

    def commit(self, *rows: OutboxRow) -> None:
        """What a transaction does."""
        self.rows.update((row.id, row) for row in rows)
        for listener in self._listeners:
            listener(rows)

    async def outbox(self, before: datetime, limit: int) -> list[OutboxRow]:
        self.reads += 1
        self._fail_if_told()
        return [row for row in self.rows.values() if row.time < before][:limit]

    async def outbox_published(self, ids: Sequence[str]) -> None:
        self._fail_if_told()
        await asyncio.sleep(0)
        self.removals.append(len(ids))
        for row_id in ids:
            self.rows.pop(row_id, None)

    def on_commit(self, listener: Callable[[Sequence[OutboxRow]], None]) -> None:
        self._listeners.append(listener)

    def _fail_if_told(self) -> None:
        if self.fails:
            self.fails -= 1
            raise ConnectionError("the database is away")


class Broker:
    """A publisher that keeps what it gets; `gate` holds answers back, `refuse` says what it will not take."""

    def __init__(self, refuse: Callable[[OutboxRow], bool] = lambda _: False) -> None:
        self.got: list[OutboxRow] = []
        self.refuse = refuse
        self.gate = asyncio.Event()
        self.gate.set()
        self.tried = 0
        self.busy = 0
        self.busiest = 0
        self.closed = False

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self.got]

    async def publish(self, row: OutboxRow) -> None:
        self.tried += 1
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.busy -= 1
        if self.refuse(row):
            raise RuntimeError("refused")
        self.got.append(row)

    async def close(self) -> None:
        self.closed = True


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Poll until something is so; raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for is another's state
            await asyncio.sleep(0.001)


def outbox(
    rows: FakeOutboxStore, broker: Broker, clock: ManualClock | None = None, limits: OutboxLimits = QUICK
) -> Outbox:
    """A quick one, not yet started."""
    return Outbox(rows, broker, clock or ManualClock(), "orders", limits)


LONG_AGO = timedelta(hours=1)
