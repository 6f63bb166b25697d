"""Outbox and store together: what was committed is published, across crashes and broken disks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from events.outbox import Outbox, OutboxLimits, OutboxRow
from events.publisher import Publisher
from functions.runtime.clock import SystemClock
from functions.runtime.store.sqlite.store import SQLiteStore
from functions.runtime.tests.store_kinds import MAPPINGS, Counter, adding, happened

QUICK = OutboxLimits(parallel=8, held=100, first_pause=0.001, longest_pause=0.01, gather=0.05)


class Broker:
    """Keeps what it gets; says when it has enough."""

    def __init__(self, enough: int) -> None:
        self.got: list[str] = []
        self.enough = enough
        self.has_enough = asyncio.Event()

    async def publish(self, row: OutboxRow) -> None:
        await asyncio.sleep(0)
        self.got.append(row.id)
        if len(set(self.got)) >= self.enough:
            self.has_enough.set()

    async def close(self) -> None:
        """Nothing is open."""


class Forgetful(SQLiteStore):
    """Dies before it can remove a row."""

    async def outbox_published(self, ids: Sequence[str]) -> None:
        raise OSError("died")


async def written(store: SQLiteStore, number: int) -> None:
    await asyncio.gather(*(store.update(Counter, "c", adding(events=[happened(n + 1)])) for n in range(number)))


def publishing(store: SQLiteStore, broker: Publisher) -> Outbox:
    made = Outbox(store, broker, SystemClock(), "orders", QUICK)
    made.start()
    return made


async def test_a_burst_beyond_memory_is_published_once_each_and_leaves_nothing(tmp_path: Path) -> None:
    store, broker = SQLiteStore(tmp_path / "store.db", MAPPINGS, SystemClock()), Broker(1000)
    outbox = publishing(store, broker)
    await written(store, 1000)
    async with asyncio.timeout(20):
        await broker.has_enough.wait()
    await outbox.drain(5)

    assert len(broker.got) == 1000
    assert await store.outbox_state() == (0, None)
    await store.close()


async def test_what_a_dead_process_published_but_did_not_remove_is_published_again(tmp_path: Path) -> None:
    broker = Broker(50)
    dying = Forgetful(tmp_path / "store.db", MAPPINGS, SystemClock())
    outbox = publishing(dying, broker)
    await written(dying, 50)
    async with asyncio.timeout(20):
        await broker.has_enough.wait()
    await outbox.drain(1)
    await dying.close()
    first = list(broker.got)

    store, later = SQLiteStore(tmp_path / "store.db", MAPPINGS, SystemClock()), Broker(50)
    outbox = publishing(store, later)
    async with asyncio.timeout(20):
        await later.has_enough.wait()
    await outbox.drain(5)

    assert sorted(first) == sorted(later.got)
    assert await store.outbox_state() == (0, None)
    await store.close()


async def test_what_was_never_published_is_published_by_the_next_life(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db", MAPPINGS, SystemClock())
    await written(store, 300)
    await store.close()

    store, broker = SQLiteStore(tmp_path / "store.db", MAPPINGS, SystemClock()), Broker(300)
    outbox = publishing(store, broker)
    async with asyncio.timeout(20):
        await broker.has_enough.wait()
    await outbox.drain(5)

    assert await store.outbox_state() == (0, None)
    await store.close()
