"""Streams of order changes: many watchers that share one reader task.

A change by this process wakes its watchers at once. Changes by other processes are found by polling (orders-events
scales separately from orders). One task reads all watched orders together, and runs only while there are watchers. A
slow watcher skips versions and does not delay the others: each receives the newest state with its whole timeline.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from contextvars import Context

from functions.orders.domain import FINAL, Order
from functions.runtime.errors import ServiceError, exhausted, not_found, unavailable
from functions.runtime.store.port import Store

log = logging.getLogger("shop.orders.watch")

_BATCH = 100


class _Watcher:
    """One stream: the newest state, and an event that is set when there may be something to send."""

    def __init__(self) -> None:
        self.newest: Order | None = None
        self.wake = asyncio.Event()

    def offer(self, order: Order) -> None:
        if self.newest is None or order.version > self.newest.version:
            self.newest = order
            self.wake.set()


class Watchers:
    """All streams of this process: at most `limit` in total, and at most `limit_each` for one person.

    `interval`, in seconds, is the longest delay before a change by another process is seen.
    """

    def __init__(self, store: Store, interval: float, limit: int, limit_each: int) -> None:
        self._store = store
        self._interval = interval
        self._limit = limit
        self._limit_each = limit_each
        self._count = 0
        self._by_person: Counter[str] = Counter()
        self._by_order: dict[str, set[_Watcher]] = {}
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._closed = False

    def notify(self, order_id: str) -> None:
        """Wake the watchers, if any, of an order that this process has changed."""
        if order_id in self._by_order:
            self._changed.add(order_id)
            self._wake.set()

    async def watch(self, order_id: str, user_id: str) -> AsyncGenerator[Order, None]:
        """Yield the order now and after each change until it is final. `user_id` is the id of the watching person.

        Raises:
            NotFound: ORDER_NOT_FOUND.
            ResourceExhausted: TOO_MANY_WATCHERS.
            Unavailable: SHUTTING_DOWN, when the process ends before the order is final.
        """
        watcher = self._add(order_id, user_id)
        try:
            order = await self._store.get(Order, order_id)
            if order is None:
                raise not_found("Order", "ORDER_NOT_FOUND")
            watcher.offer(order)
            sent = 0
            while sent == 0 or order.status not in FINAL:
                if watcher.newest is not None and watcher.newest.version > sent:
                    order = watcher.newest
                    sent = order.version
                    yield order
                else:
                    self._require_open()
                    watcher.wake.clear()
                    await watcher.wake.wait()
        finally:
            self._remove(order_id, user_id, watcher)

    async def close(self) -> None:
        """End all streams."""
        self._closed = True
        for watchers in self._by_order.values():
            for watcher in watchers:
                watcher.wake.set()
        if self._reader:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    def _require_open(self) -> None:
        if self._closed:
            raise unavailable("SHUTTING_DOWN", "The service is shutting down: watch again.")

    def _add(self, order_id: str, user_id: str) -> _Watcher:
        self._require_open()
        if self._count >= self._limit:
            raise exhausted("TOO_MANY_WATCHERS", "Too many orders are being watched.", retry_after=5.0)
        if self._by_person[user_id] >= self._limit_each:
            raise exhausted("TOO_MANY_WATCHERS", "You are watching too many orders already.", retry_after=5.0)
        watcher = _Watcher()
        self._by_order.setdefault(order_id, set()).add(watcher)
        self._count += 1
        self._by_person[user_id] += 1
        if self._reader is None or self._reader.done():
            # A separate context: the reader must not run in the trace or identity of the first watcher.
            self._reader = asyncio.create_task(self._read(), name="orders-watch", context=Context())
        return watcher

    def _remove(self, order_id: str, user_id: str, watcher: _Watcher) -> None:
        watchers = self._by_order[order_id]
        watchers.remove(watcher)
        self._count -= 1
        self._by_person[user_id] -= 1
        if not self._by_person[user_id]:
            del self._by_person[user_id]
        if not watchers:
            del self._by_order[order_id]
            self._changed.discard(order_id)
        if not self._by_order:
            self._wake.set()  # no watcher is left: the reader ends

    async def _read(self) -> None:
        """Read changed orders when woken, and all watched orders once per interval."""
        loop = asyncio.get_running_loop()
        next_poll = loop.time() + self._interval
        while self._by_order:
            try:
                async with asyncio.timeout_at(next_poll):
                    await self._wake.wait()
                wanted = self._changed
            except TimeoutError:
                wanted = set(self._by_order)
                next_poll = loop.time() + self._interval
            self._changed = set()
            self._wake.clear()
            try:
                await self._deliver(wanted)
            except ServiceError as error:
                log.warning("watch_read_failed", extra={"reason": error.reason})
            except Exception:
                log.exception("watch_read_failed")  # the next poll retries, so a failed read ends no stream

    async def _deliver(self, order_ids: Iterable[str]) -> None:
        ids = list(order_ids)
        for start in range(0, len(ids), _BATCH):
            found = await self._store.get_many(Order, ids[start : start + _BATCH])
            for order_id, order in found.items():
                for watcher in self._by_order.get(order_id, ()):
                    watcher.offer(order)
