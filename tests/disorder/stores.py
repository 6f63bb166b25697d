"""The stores that the domains stand on here."""

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


class Restless(MemoryStore):
    """In memory, but whoever asks may have to wait for others first: as many turns as `chance` says.

    What `broken` names cannot be written, as if its data were spoiled.
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
            raise RuntimeError("spoiled")
        done = await super().transact(refs, *args, **kwargs)
        await self._wait()
        return done

    async def _wait(self) -> None:
        for _ in range(self._chance.choice((0, 0, 1, 3, 9))):
            await asyncio.sleep(0)


def restless(chance: random.Random) -> OpenStore:
    """Every domain in memory."""
    return lambda _, mappings, clock: Restless(mappings, clock, chance)


def on_disk(folder: Path) -> OpenStore:
    """Every domain in a file of its own."""
    return lambda name, mappings, clock: SQLiteStore(folder / f"{name}.db", mappings, clock)
