"""The outbox: events that committed with the state they tell of, and their way to the broker.

A row is published right after its commit, in the background, and removed once the broker has it. What a crash or a
broker's absence leaves behind is published at the next start or by the sweep: at least once, under the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

from observability import context, metrics, tracing

if TYPE_CHECKING:
    from events.publisher import Publisher

log = logging.getLogger("shop.outbox")

PARALLEL = 32
HELD = 5000
"""Rows kept in memory at most; what comes beyond waits in the store for the sweep that follows."""

ATTEMPTS = 6
SWEEP_AGE = timedelta(seconds=5)
_ALL = timedelta(days=1)  # rows of another replica's clock, running ahead, included
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


class OutboxRow(NamedTuple):
    """One CloudEvent to be published, as written in the transaction.

    `id` is a UUIDv7 and the event's id; `data` is the payload's JSON; `traceparent`, `tracestate` and
    `correlation_id` are those of the work that caused it, kept so that a publication much later still
    belongs to the same trace.
    """

    id: str
    type: str
    source: str
    subject: str
    time: datetime
    data: bytes
    correlation_id: str
    traceparent: str
    tracestate: str


class Rows(Protocol):
    """What the outbox needs of a store."""

    async def outbox(self, before: datetime, limit: int) -> list[OutboxRow]: ...

    async def outbox_published(self, ids: Sequence[str]) -> None: ...

    def on_commit(self, listener: Callable[[Sequence[OutboxRow]], None]) -> None: ...


class Now(Protocol):
    """What it needs of a clock."""

    def now(self) -> datetime: ...


class Outbox:
    """Publishes what a store commits. `start`, then `drain` once; `sweep` whenever something may be left over."""

    def __init__(self, store: Rows, publisher: Publisher, clock: Now, service: str) -> None:
        self._store = store
        self._publisher = publisher
        self._clock = clock
        self._service = service
        self._queue: asyncio.Queue[OutboxRow] = asyncio.Queue()
        self._held: set[str] = set()
        self._done: list[str] = []
        self._workers: list[asyncio.Task[None]] = []
        self._removing: asyncio.Task[None] | None = None
        store.on_commit(self._take)

    def start(self) -> None:
        """Begin to publish, first what an earlier life left behind."""
        self._workers = [asyncio.create_task(self._work()) for _ in range(PARALLEL)]
        self._workers.append(asyncio.create_task(self._pick_up(-_ALL)))

    async def sweep(self) -> None:
        """Publish rows that have waited longer than the usual way takes, unless they are on their way."""
        await self._pick_up(SWEEP_AGE)

    async def drain(self, seconds: float) -> None:
        """Publish what is on its way, for at most `seconds`; the rest stays in the store."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._queue.join()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        if self._removing is not None:
            await self._removing
        await self._publisher.close()

    def _take(self, rows: Sequence[OutboxRow]) -> None:
        for row in rows:
            if row.id not in self._held and len(self._held) < HELD:
                self._held.add(row.id)
                self._queue.put_nowait(row)

    async def _pick_up(self, age: timedelta) -> None:
        while len(self._held) < HELD:
            before = len(self._held)
            self._take(await self._store.outbox(self._clock.now() - age, HELD))
            if len(self._held) == before:
                return
            await self._queue.join()

    async def _work(self) -> None:
        while True:
            row = await self._queue.get()
            try:
                await self._publish(row)
            finally:
                self._queue.task_done()

    async def _publish(self, row: OutboxRow) -> None:
        from events.publisher import NotPublished  # the publisher knows the row, so it is imported late

        context.enter(context.Context(row.correlation_id, row.traceparent, row.tracestate))
        pause = _FIRST_PAUSE
        for _ in range(ATTEMPTS):
            try:
                with tracing.span(f"publish {row.type}", "PRODUCER", {"messaging.message.id": row.id}):
                    current = context.current()
                    await self._publisher.publish(row._replace(traceparent=current.traceparent))
            except NotPublished as error:
                log.warning("publish_failed", extra={"type": row.type, "event_id": row.id, "reason": str(error)})
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                metrics.PUBLISHED.labels(self._service, row.type, "published").inc()
                self._remove(row.id)
                return
        metrics.PUBLISHED.labels(self._service, row.type, "left to the sweep").inc()
        self._held.discard(row.id)

    def _remove(self, row_id: str) -> None:
        self._done.append(row_id)
        if self._removing is None or self._removing.done():
            self._removing = asyncio.create_task(self._remove_all())

    async def _remove_all(self) -> None:
        while self._done:
            ids, self._done = self._done, []
            try:
                await self._store.outbox_published(ids)
            except Exception:
                log.exception("outbox_removal_failed")  # they are published again: the inboxes know their ids
            self._held.difference_update(ids)
