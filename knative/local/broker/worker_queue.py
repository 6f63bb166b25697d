"""Run work items with bounded concurrency, in order of arrival."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

log = logging.getLogger("shop.broker")

T = TypeVar("T")

_AFTER_ERROR = 1.0


class WorkerQueue(Generic[T]):
    """Runs `work` for each item, at most `limit` concurrently. Workers end when the queue is empty."""

    def __init__(self, work: Callable[[T], Awaitable[None]], limit: int) -> None:
        self._work = work
        self._limit = limit
        self._ready: deque[T] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = False

    def push(self, item: T) -> None:
        """Queue an item. After `stop` items are ignored, because they are durable in the database."""
        if self._stopping:
            return
        self._ready.append(item)
        if len(self._running) < self._limit:
            task = asyncio.create_task(self._run())
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def push_later(self, item: T, seconds: float) -> None:
        """Queue an item after `seconds`, or immediately if `seconds` is not positive."""
        if seconds > 0:
            asyncio.get_running_loop().call_later(seconds, self.push, item)
        else:
            self.push(item)

    async def stop(self, grace: float) -> None:
        """Start no more items, and cancel running items that do not end within `grace` seconds."""
        self._stopping = True
        self._ready.clear()
        running = set(self._running)
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=grace)
        for task in late:
            task.cancel()
        if late:
            log.warning("deliveries cut short: they are repeated at the next start", extra={"count": len(late)})
            await asyncio.wait(late, timeout=1.0)

    async def _run(self) -> None:
        while self._ready and not self._stopping:
            item = self._ready.popleft()
            try:
                await self._work(item)
            except Exception:
                log.exception("a delivery failed in the broker itself")
                self.push_later(item, _AFTER_ERROR)
