"""Group commit of the store on SQLite: who waits for whom, and what a failing or silent disk means."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from events.catalog import StockLow
from events.outbox import OutboxRow
from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError, failed_precondition
from functions.runtime.store.port import AlreadyDone, Changes, Ref
from functions.runtime.store.sqlite.store import SQLiteStore
from functions.runtime.tests.store_kinds import MAPPINGS, Counter, adding, happened, inbox_record
from functions.runtime.tests.support import recorded

FOREVER = datetime.max.replace(tzinfo=UTC)


def opened(path: Path, connection: type[Disk] | None = None, **options: Any) -> SQLiteStore:
    store = SQLiteStore(path, MAPPINGS, ManualClock(), connection=connection or sqlite3.Connection, **options)
    if connection:
        connection.commits = 0  # the making of the file does not count
    return store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


class Disk(sqlite3.Connection):
    """A connection to a disk that fails, waits or counts when told."""

    commits = 0
    fails = False
    gate: threading.Event | None = None

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            if self.gate:
                self.gate.wait(30)
            if type(self).fails:
                raise sqlite3.OperationalError("disk I/O error")
            type(self).commits += 1
        return super().execute(sql, *args)


@pytest.fixture
def disk() -> type[Disk]:
    class ThisDisk(Disk):
        pass

    return ThisDisk


async def test_a_strangers_short_write_is_waited_for(path: Path) -> None:
    store = opened(path)
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(store.update(Counter, "c", adding()))
    reading = await store.get(Counter, "c")  # reads go on
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert (reading, done) == (None, set())

    stranger.execute("COMMIT")
    stranger.close()

    assert (await waiting).left == 1
    await store.close()


async def test_a_strangers_long_write_makes_the_store_unavailable_for_as_long(path: Path) -> None:
    store = opened(path, timeout=0.5)
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")

    answers = await asyncio.gather(*(store.update(Counter, "c", adding()) for _ in range(3)), return_exceptions=True)
    assert {answer.code for answer in answers if isinstance(answer, ServiceError)} == {Code.UNAVAILABLE}
    stranger.execute("COMMIT")
    stranger.close()

    assert (await store.update(Counter, "c", adding())).left == 1
    await store.close()


async def test_a_failed_commit_fails_its_group_and_nothing_after_it(path: Path, disk: type[Disk]) -> None:
    store = opened(path, connection=disk)
    heard: list[OutboxRow] = []
    store.on_commit(heard.extend)
    disk.fails = True
    answers = await asyncio.gather(
        *(store.update(Counter, "c", adding(events=[happened()]), idempotency=inbox_record(str(n))) for n in range(5)),
        return_exceptions=True,
    )
    with pytest.raises(ServiceError):
        await store.ping()

    assert [a.code for a in answers if isinstance(a, ServiceError)] == [Code.UNAVAILABLE] * 5
    assert await store.get(Counter, "c") is None
    assert (heard, await store.outbox_state()) == ([], (0, None))

    disk.fails = False
    assert (await store.update(Counter, "c", adding(), idempotency=inbox_record("0"))) == Counter("c", 1, version=1)
    await store.ping()
    await store.close()


async def test_an_overdue_commit_makes_the_store_unavailable_until_it_ends(path: Path, disk: type[Disk]) -> None:
    disk.gate = threading.Event()
    store = opened(path, connection=disk, timeout=0.5)
    heard = asyncio.Event()
    store.on_commit(lambda _: heard.set())
    first = asyncio.create_task(store.update(Counter, "c", adding(events=[happened()])))
    await asyncio.sleep(0)
    second = asyncio.create_task(store.update(Counter, "c", adding()))
    for task in (first, second):
        with pytest.raises(ServiceError) as caught:
            await task
        assert caught.value.code is Code.UNAVAILABLE
    with pytest.raises(ServiceError):
        await store.update(Counter, "c", adding())

    disk.gate.set()
    async with asyncio.timeout(10):
        await heard.wait()

    assert (await store.update(Counter, "c", adding())).left == 2  # the first took effect, the second never began
    await store.close()


async def test_what_arrives_during_a_commit_goes_into_the_next_together(path: Path, disk: type[Disk]) -> None:
    store = opened(path, connection=disk)
    await asyncio.gather(*(store.update(Counter, "c", adding()) for _ in range(200)))

    assert disk.commits == 1
    await store.close()


async def test_transactions_that_write_nothing_do_not_sync(path: Path, disk: type[Disk]) -> None:
    store = opened(path, connection=disk)
    await store.transact([], lambda _: Changes(None), idempotency=inbox_record("m"))
    for _ in range(3):
        with pytest.raises(AlreadyDone):
            await store.transact([], lambda _: Changes(None), idempotency=inbox_record("m"))
    await store.close()

    assert disk.commits == 1 + 3  # an empty COMMIT costs nothing, and runs where it stands


async def test_a_change_that_fails_hurts_nobody_else_in_its_group(path: Path, disk: type[Disk]) -> None:
    store = opened(path, connection=disk)

    async def step(number: int) -> Counter:
        def change(counter: Counter | None) -> tuple[Counter, Sequence[Any]]:
            if number % 3 == 0:
                raise failed_precondition("NO", "No.")
            return adding(events=[happened(number)])(counter)

        return await store.update(Counter, "c", change)

    answers = await asyncio.gather(*(step(number) for number in range(30)), return_exceptions=True)

    assert sum(isinstance(answer, ServiceError) for answer in answers) == 10
    assert await store.get(Counter, "c") == Counter("c", 20, version=20)
    assert disk.commits == 1
    await store.close()


async def test_a_write_that_fails_undoes_its_own_transaction_alone(path: Path) -> None:
    store = opened(path)

    async def step(number: int) -> Counter:
        key = f"c{number}" if number != 4 else "\ud800"  # no UTF-8: it fails when it is written, in mid-transaction

        def change(found: Sequence[Any]) -> Changes[Counter]:
            kept = found[0] or Counter("c")
            kept.left += 1
            return Changes(kept, put=[kept], events=[happened(number)])

        return await store.transact([Ref(Counter, "c")], change, idempotency=inbox_record(key))

    answers = await asyncio.gather(*(step(number) for number in range(1, 9)), return_exceptions=True)

    assert [type(answer) for answer in answers].count(UnicodeEncodeError) == 1
    assert await store.get(Counter, "c") == Counter("c", 7, version=7)
    assert [event.available for event in await recorded(store) if isinstance(event, StockLow)] == [
        1,
        2,
        3,
        5,
        6,
        7,
        8,
    ]
    await store.close()
