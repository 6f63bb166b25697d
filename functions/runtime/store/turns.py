"""Turns: work on the same things goes one by one, work on different things side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager


class Turns:
    """A lock per key, for as long as somebody wants it.

    Where races are settled by trying again, a hundred writers of one thing would try five thousand times; those
    of one process had better queue.
    """

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, keys: Iterable[str], deadline: float) -> AsyncIterator[None]:
        """The turn for all of `keys`; raises TimeoutError when it has not come by `deadline` (the loop's clock)."""
        async with AsyncExitStack() as held:
            async with asyncio.timeout_at(deadline):
                for key in sorted(set(keys)):  # in one order, so that no two wait for each other
                    await held.enter_async_context(self._one(key))
            yield

    @asynccontextmanager
    async def _one(self, key: str) -> AsyncIterator[None]:
        lock, wanted = self._locks.get(key) or (asyncio.Lock(), 0)
        self._locks[key] = lock, wanted + 1
        try:
            async with lock:
                yield
        finally:
            lock, wanted = self._locks.pop(key)
            if wanted > 1:
                self._locks[key] = lock, wanted - 1
