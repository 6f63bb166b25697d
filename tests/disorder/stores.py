"""The stores of the domains: in memory with interleaved calls, or on disk."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from functions.runtime.clock import ManualClock
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import EntityMapping, Ref, Store
from functions.runtime.store.sqlite.store import SQLiteStore

OpenStore = Callable[[str, Sequence[EntityMapping[Any]], ManualClock], Store]


class InterleavingStore(MemoryStore):
    """A memory store whose calls yield to other tasks a random number of times.

    A transaction with an entity in `broken` fails, as if its data were corrupt.
    """

    def __init__(
        self, mappings: Sequence[EntityMapping[Any]], clock: ManualClock, chance: random.Random
    ) -> None:
        super().__init__(mappings, clock, lost_races=1)
        self._chance = chance
        self.broken: set[str] = set()

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        await self._wait()
        return await super().get(*args, **kwargs)

    async def page(self, *args: Any, **kwargs: Any) -> Any:
        await self._wait()
        return await super().page(*args, **kwargs)

    async def transact(self, refs: Sequence[Ref], *args: Any, **kwargs: Any) -> Any:
        await self._wait()
        if any(ref.id in self.broken for ref in refs):
            raise RuntimeError("corrupt")
        done = await super().transact(refs, *args, **kwargs)
        await self._wait()
        return done

    async def _wait(self) -> None:
        for _ in range(self._chance.choice((0, 0, 1, 3, 9))):
            await asyncio.sleep(0)


def interleaving(chance: random.Random) -> OpenStore:
    """Return a factory of stores in memory."""
    return lambda _, mappings, clock: InterleavingStore(mappings, clock, chance)


def on_disk(folder: Path) -> OpenStore:
    """Return a factory of SQLite stores, a file for each domain."""
    return lambda name, mappings, clock: SQLiteStore(folder / f"{name}.db", mappings, clock)
