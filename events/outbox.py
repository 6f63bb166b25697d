"""Transactional outbox: publish the events that were committed together with the state.

A row is published in the background right after its commit, and removed once the broker has accepted it. Rows that
remain after a crash are published at the next start or by the sweep; rows that remain because the broker is down are
retried. So each event is published at least once, always with the same id.
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
"""`OutboxStore.outbox` reads rows older than a time. Adding this to the time includes rows written exactly then."""


class OutboxRow(NamedTuple):
    """One CloudEvent to publish, as written in the transaction.

    `id` is the event's id, a UUIDv7; `data` is the payload as JSON. `traceparent`, `tracestate` and `correlation_id`
    come from the request or event that caused it, so that a late publication still belongs to the same trace.
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
    """The part of a store that the outbox uses."""

    async def outbox(self, before: datetime, limit: int) -> list[OutboxRow]: ...

    async def outbox_published(self, ids: Sequence[str]) -> None: ...

    def on_commit(self, listener: Callable[[Sequence[OutboxRow]], None]) -> None: ...


class Clock(Protocol):
    """The part of a clock that the outbox uses."""

    def now(self) -> datetime: ...


class OutboxLimits(NamedTuple):
    """Limits of publishing.

    `parallel`: number of rows published at once. `held`: maximum number of rows in memory. `attempts`: number of
    attempts before a row is postponed. Pauses between attempts are in seconds and double from `first_pause` to
    `longest_pause`. `age`: the sweep publishes rows that are older than this. `gather`: seconds in which published rows
    are gathered, to remove them in one transaction.
    """

    parallel: int = 32
    held: int = 5000
    attempts: int = 4
    first_pause: float = 0.1
    longest_pause: float = 5.0
    age: timedelta = timedelta(seconds=5)
    gather: float = 0.5


_LIMITS = OutboxLimits()


class Outbox:
    """Publishes the rows that a store commits. Call `start` first, `drain` last, and `sweep` at any time in between.

    Rows that do not fit into memory, and rows that the broker refused too often, stay in the store and are read back
    later. So every row is eventually published, even without sweeps.
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
        self._held: set[str] = set()  # ids of rows that are queued, being published, or not yet removed
        self._behind = asyncio.Event()  # the store has rows that are not in memory
        self._room = asyncio.Event()  # at most half of `OutboxLimits.held` is in use
        self._failures = 0  # number of failed attempts since the last success
        self._stopping = asyncio.Event()
        self._resuming: asyncio.TimerHandle | None = None
        self._done: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._removing: asyncio.Task[None] | None = None
        store.on_commit(self._take)

    def start(self) -> None:
        """Start publishing, including rows that a previous process left."""
        self._behind.set()
        self._room.set()
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._limits.parallel)]
        self._tasks.append(asyncio.create_task(self._catch_up()))

    async def sweep(self) -> None:
        """Queue rows that are older than `OutboxLimits.age` and not queued yet.

        Returns once they are queued and does not wait for the broker, which may be delivering the event that triggers
        this sweep.
        """
        if await self._read_back(self._limits.age):
            self._behind.set()

    async def drain(self, seconds: float) -> None:
        """Publish the rows in memory, with one more attempt each and for at most `seconds`. Other rows stay stored."""
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
        """Queue as many rows as fit; return whether the store may have more."""
        # The rows read may include all rows in memory; even then, enough others are read to fill the free room.
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
            # Many consecutive failures are caused by the broker and not by the row, so all rows wait longer.
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
        except Exception as error:  # whatever the error is, the row stays and the worker continues
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
            if self._room.is_set():  # otherwise other rows wait for free memory
                await self._sleep(self._limits.gather)
            ids, self._done = self._done, []
            try:
                failpoint("outbox.remove.before")
                await self._store.outbox_published(ids)
                failpoint("outbox.remove.after")
            except Exception as error:
                log.warning("outbox_removal_failed", extra={"reason": type(error).__name__})
                if self._stopping.is_set():  # the rows will be published again, with the same ids
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
