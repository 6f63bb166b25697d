"""What only the store on SQLite does: files, owners, crashes, disks that fail, work that piles up."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections import Counter as Tally
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from events.catalog import StockLow
from events.outbox import OutboxRow
from functions.runtime.clock import ManualClock, SystemClock
from functions.runtime.errors import Code, ServiceError, failed_precondition
from functions.runtime.store.port import AlreadyDone, Changes, Once, Ref
from functions.runtime.store.sqlite import SQLiteStore
from functions.runtime.store.sqlite_file import SchemaTooNewError, StoreInUseError
from functions.runtime.store.testing import recorded
from functions.runtime.tests.store_kinds import KINDS, Counter, Document, adding, happened, mark, put

FOREVER = datetime.max.replace(tzinfo=UTC)


def opened(path: Path, **options: Any) -> SQLiteStore:
    return SQLiteStore(path, KINDS, ManualClock(), **options)


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


async def test_everything_is_there_after_reopening(path: Path) -> None:
    store = opened(path)
    await put(store, Document("d", owner="me", text="word"))
    request = Once("key", timedelta(days=1), "f", Counter)
    await store.update(Counter, "c", adding(3, [happened(1)]), once=request)
    await store.update(Counter, "c", adding(1, [happened(2)]), once=mark("m"))
    await store.close()

    store = opened(path)
    assert await store.get(Counter, "c") == Counter("c", 4, version=2)
    assert [d.id for d in (await store.page(Document, "word", "word", limit=5)).items] == ["d"]
    assert await recorded(store) == [happened(1), happened(2)]
    assert (await store.outbox_state())[0] == 2
    assert await store.update(Counter, "c", adding(), once=request) == Counter("c", 3, version=1)
    with pytest.raises(AlreadyDone):
        await store.update(Counter, "c", adding(), once=mark("m"))
    await store.close()


async def test_a_file_of_a_later_release_is_refused_and_left_alone(path: Path) -> None:
    await opened(path).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()

    with pytest.raises(SchemaTooNewError, match="99"):
        opened(path)

    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 1")
    other.close()
    await opened(path).close()  # the refusal let go of the lock


async def test_a_second_owner_is_refused_while_readers_may_look(path: Path) -> None:
    store = opened(path)
    await store.update(Counter, "c", adding())

    with pytest.raises(StoreInUseError, match="in use"):
        opened(path)
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    assert reader.execute("SELECT COUNT(*) FROM entity").fetchone() == (1,)
    reader.execute("BEGIN")
    await store.update(Counter, "c", adding())  # a reader holds up no writer
    reader.close()
    await store.close()

    await opened(path).close()


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
    store = opened(path, patience=0.05)
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")

    answers = await asyncio.gather(
        *(store.update(Counter, "c", adding()) for _ in range(3)), return_exceptions=True
    )
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
        *(store.update(Counter, "c", adding(events=[happened()]), once=mark(str(n))) for n in range(5)),
        return_exceptions=True,
    )
    with pytest.raises(ServiceError):
        await store.ping()

    assert [a.code for a in answers if isinstance(a, ServiceError)] == [Code.UNAVAILABLE] * 5
    assert await store.get(Counter, "c") is None
    assert (heard, await store.outbox_state()) == ([], (0, None))

    disk.fails = False
    assert (await store.update(Counter, "c", adding(), once=mark("0"))) == Counter("c", 1, version=1)
    await store.ping()
    await store.close()


async def test_an_overdue_commit_makes_the_store_unavailable_until_it_ends(
    path: Path, disk: type[Disk]
) -> None:
    disk.gate = threading.Event()
    store = opened(path, connection=disk, patience=0.05)
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

    assert (
        await store.update(Counter, "c", adding())
    ).left == 2  # the first took effect, the second never began
    await store.close()


async def test_what_arrives_during_a_commit_goes_into_the_next_together(path: Path, disk: type[Disk]) -> None:
    store = opened(path, connection=disk)
    await asyncio.gather(*(store.update(Counter, "c", adding()) for _ in range(200)))

    assert disk.commits == 1
    await store.close()


async def test_transactions_that_write_nothing_do_not_sync(path: Path, disk: type[Disk]) -> None:
    store = opened(path, connection=disk)
    await store.transact([], lambda _: Changes(None), once=mark("m"))
    for _ in range(3):
        with pytest.raises(AlreadyDone):
            await store.transact([], lambda _: Changes(None), once=mark("m"))
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
        key = (
            f"c{number}" if number != 4 else "\ud800"
        )  # no UTF-8: it fails when it is written, in mid-transaction

        def change(found: Sequence[Any]) -> Changes[Counter]:
            kept = found[0] or Counter("c")
            kept.left += 1
            return Changes(kept, put=[kept], events=[happened(number)])

        return await store.transact([Ref(Counter, "c")], change, once=mark(key))

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


async def test_a_caller_that_gives_up_before_its_turn_changes_nothing(path: Path) -> None:
    store = opened(path)
    task = asyncio.create_task(store.update(Counter, "c", adding()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert (await store.update(Counter, "c", adding())).left == 1
    await store.close()


async def test_closing_finishes_what_was_accepted(path: Path) -> None:
    store = opened(path)
    tasks = [asyncio.create_task(store.update(Counter, "c", adding())) for _ in range(300)]
    await asyncio.sleep(0)
    await store.close()

    assert len(await asyncio.gather(*tasks)) == 300
    store = opened(path)
    assert await store.get(Counter, "c") == Counter("c", 300, version=300)
    await store.close()


def killed_after(path: Path, acknowledged: int) -> dict[str, int]:
    """The last version that a process acknowledged of each of its counters before it was killed."""
    command = [sys.executable, "-m", "functions.runtime.tests.store_crash", str(path)]
    versions: dict[str, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for number, line in enumerate(process.stdout):
            key, _, version = line.partition(" ")
            versions[key] = int(version)
            if number == acknowledged:
                process.kill()
    return versions


@pytest.mark.parametrize("acknowledged", [200, 2000])
async def test_a_killed_process_loses_nothing_that_it_acknowledged(path: Path, acknowledged: int) -> None:
    versions = killed_after(path, acknowledged)
    assert len(versions) > 16

    store = SQLiteStore(path, KINDS, SystemClock())
    kept = await store.get_many(Counter, list(versions))
    assert all(kept[key].version >= version for key, version in versions.items())
    with_unacknowledged = await store.get_many(Counter, [f"{w}-{n}" for w in range(1, 17) for n in range(3)])
    assert all(counter.left == counter.version for counter in with_unacknowledged.values())
    expected = Tally(
        int(key.split("-")[0]) * 1000 + left
        for key, counter in with_unacknowledged.items()
        for left in range(1, counter.left + 1)
    )
    assert (
        Tally(event.available for event in await recorded(store) if isinstance(event, StockLow)) == expected
    )
    await store.close()
