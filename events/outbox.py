"""The outbox: events that committed with the state they tell of, and their way to the broker.

A row is published right after its commit, in the background, and removed once the broker has it. What a crash
or a broker's absence leaves behind is published at the next start or by the sweep: at least once, under the
same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

from observability import context, metrics, tracing
from observability.failpoints import failpoint

if TYPE_CHECKING:
    from events.publisher import Publisher

log = logging.getLogger("shop.outbox")

_AT_ONCE = timedelta(microseconds=1)
"""`Store.outbox` reads what is older than a time; what was written this very moment counts, too."""


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


class OutboxStore(Protocol):
    """What the outbox needs of a store."""

    async def outbox(self, before: datetime, limit: int) -> list[OutboxRow]: ...

    async def outbox_published(self, ids: Sequence[str]) -> None: ...

    def on_commit(self, listener: Callable[[Sequence[OutboxRow]], None]) -> None: ...


class Clock(Protocol):
    """What it needs of a clock."""

    def now(self) -> datetime: ...


class OutboxLimits(NamedTuple):
    """How far publishing goes.

    `parallel` rows at once; `held` in memory at most; `attempts` before a row lets others pass; pauses, which double
    up to the longest, in seconds; `age` of a row that the usual way should have published long ago.
    """

    parallel: int = 32
    held: int = 5000
    attempts: int = 4
    first_pause: float = 0.1
    longest_pause: float = 5.0
    age: timedelta = timedelta(seconds=5)


_LIMITS = OutboxLimits()


class Outbox:
    """Publishes what a store commits. `start`, then `drain` once; `sweep` whenever something may be left over.

    What memory has no room for, and what the broker refused too often, stays in the store and is read back later. So
    nothing is stranded, with or without sweeps.
    """

    def __init__(
        self,
        store: OutboxStore,
        publisher: Publisher,
        clock: Clock,
        service: str,
        limits: OutboxLimits = _LIMITS,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._clock = clock
        self._service = service
        self._limits = limits
        self._queue: asyncio.Queue[OutboxRow] = asyncio.Queue()
        self._held: set[str] = set()  # queued, being published, or published and not yet removed
        self._behind = asyncio.Event()  # the store has rows that memory has not
        self._room = asyncio.Event()  # memory is half empty
        self._failures = 0  # since the last success
        self._stopping = asyncio.Event()
        self._resuming: asyncio.TimerHandle | None = None
        self._done: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._removing: asyncio.Task[None] | None = None
        store.on_commit(self._take)

    def start(self) -> None:
        """Begin to publish, also what an earlier life left behind."""
        self._behind.set()
        self._room.set()
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._limits.parallel)]
        self._tasks.append(asyncio.create_task(self._catch_up()))

    async def sweep(self) -> None:
        """Take up rows that have waited longer than the usual way takes, unless they are on their way.

        Returns when they are queued: a sweep that came as an event must not wait for the broker that delivers
        it.
        """
        if await self._read_back(self._limits.age):
            self._behind.set()

    async def drain(self, seconds: float) -> None:
        """Publish what is in memory, for at most `seconds`, trying each row once more; the rest stays in the store."""
        self._stopping.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._queue.join()
        if self._resuming:
            self._resuming.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._removing is not None:
            await self._removing
        await self._publisher.close()

    def _take(self, rows: Sequence[OutboxRow]) -> None:
        for row in rows:
            if row.id in self._held:
                continue
            if len(self._held) >= self._limits.held:
                self._behind.set()
                break
            self._held.add(row.id)
            self._queue.put_nowait(row)
        if len(self._held) > self._limits.held // 2:
            self._room.clear()

    def _release(self, ids: Sequence[str]) -> None:
        self._held.difference_update(ids)
        if len(self._held) <= self._limits.held // 2:
            self._room.set()

    async def _catch_up(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            await self._behind.wait()
            await self._room.wait()
            self._behind.clear()
            try:
                more = await self._read_back(timedelta())
                failures = 0
            except Exception as error:
                log.warning("outbox_read_failed", extra={"reason": type(error).__name__})
                more, failures = True, failures + 1
                await self._sleep(self._pause(failures))
            if more:
                self._behind.set()

    async def _read_back(self, age: timedelta) -> bool:
        """Take what fits; whether there may be more in the store."""
        # As many as memory holds: those of them that it holds already leave exactly the room for the others.
        rows = await self._store.outbox(self._clock.now() - age + _AT_ONCE, self._limits.held)
        self._take(rows)
        return len(rows) >= self._limits.held

    async def _work(self) -> None:
        while True:
            row = await self._queue.get()
            try:
                await self._publish(row)
            finally:
                self._queue.task_done()

    async def _publish(self, row: OutboxRow) -> None:
        context.enter(context.Context(row.correlation_id, row.traceparent, row.tracestate))
        for attempt in range(self._limits.attempts):
            if await self._attempt(row, attempt):
                self._failures = 0
                self._remove(row.id)
                return
            self._failures += 1
            if self._stopping.is_set():
                break
            # Many failures in a row are the broker's, whatever the row: everyone is then as patient.
            await self._sleep(self._pause(max(attempt + 1, self._failures // self._limits.parallel)))
        self._postpone(row)

    def _postpone(self, row: OutboxRow) -> None:
        metrics.PUBLISHED.labels(self._service, row.type, "postponed").inc()
        self._release([row.id])
        if self._resuming is None:
            self._resuming = asyncio.get_running_loop().call_later(self._limits.longest_pause, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self._behind.set()

    async def _attempt(self, row: OutboxRow, retries: int) -> bool:
        about: dict[str, tracing.Attribute] = {
            "messaging.message.id": row.id,
            "cloudevents.event_subject": row.subject,
            tracing.RETRY_COUNT: retries,
        }
        try:
            with _publishing(row.type).span(about):
                await self._publisher.publish(row._replace(traceparent=context.current().traceparent))
        except Exception as error:  # whatever it is: the row has to stay, and the worker, too
            reason = str(error) or type(error).__name__
            log.warning("publish_failed", extra={"type": row.type, "event_id": row.id, "reason": reason})
            return False
        metrics.PUBLISHED.labels(self._service, row.type, "published").inc()
        return True

    def _pause(self, failures: int) -> float:
        doubled = self._limits.first_pause * 2.0 ** min(failures - 1, 16)
        return min(doubled, self._limits.longest_pause) * random.uniform(0.5, 1)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _remove(self, row_id: str) -> None:
        self._done.append(row_id)
        if self._removing is None or self._removing.done():
            self._removing = asyncio.create_task(self._remove_all())

    async def _remove_all(self) -> None:
        failures = 0
        while self._done:
            ids, self._done = self._done, []
            try:
                failpoint("outbox.remove.before")
                await self._store.outbox_published(ids)
                failpoint("outbox.remove.after")
            except Exception as error:
                log.warning("outbox_removal_failed", extra={"reason": type(error).__name__})
                if self._stopping.is_set():  # they will be published again, under the same ids
                    return
                self._done += ids
                failures += 1
                await self._sleep(self._pause(failures))
            else:
                failures = 0
                self._release(ids)


@lru_cache(256)
def _publishing(type_: str) -> tracing.SpanTemplate:
    attributes: dict[str, tracing.Attribute] = {
        **tracing.MESSAGING,
        "messaging.operation.type": "send",
        "messaging.operation.name": "publish",
        "messaging.destination.name": type_,
    }
    return tracing.SpanTemplate(f"publish {type_}", "PRODUCER", attributes)
