"""What only the store on SQLite does: files, owners, crashes, disks that fail, work that piles up."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections import Counter as Tally
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from events.catalog import StockLow
from functions.runtime.clock import ManualClock, SystemClock
from functions.runtime.store.port import AlreadyDone, IdempotencyRecord
from functions.runtime.store.sqlite.file import StoreInUseError
from functions.runtime.store.sqlite.store import SQLiteStore
from functions.runtime.tests.store_kinds import (
    MAPPINGS,
    Counter,
    Document,
    adding,
    happened,
    inbox_record,
    put,
)
from functions.runtime.tests.support import recorded

FOREVER = datetime.max.replace(tzinfo=UTC)


def opened(path: Path, **options: Any) -> SQLiteStore:
    return SQLiteStore(path, MAPPINGS, ManualClock(), **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


async def test_everything_is_there_after_reopening(path: Path) -> None:
    store = opened(path)
    await put(store, Document("d", owner="me", text="words"))
    request = IdempotencyRecord("key", timedelta(days=1), "f", Counter)
    await store.update(Counter, "c", adding(3, [happened(1)]), idempotency=request)
    await store.update(Counter, "c", adding(1, [happened(2)]), idempotency=inbox_record("m"))
    await store.close()

    store = opened(path)
    assert await store.get(Counter, "c") == Counter("c", 4, version=2)
    assert [d.id for d in (await store.page(Document, "words", "words", limit=5)).items] == ["d"]
    assert await recorded(store) == [happened(1), happened(2)]
    assert (await store.outbox_state())[0] == 2
    assert await store.update(Counter, "c", adding(), idempotency=request) == Counter("c", 3, version=1)
    with pytest.raises(AlreadyDone):
        await store.update(Counter, "c", adding(), idempotency=inbox_record("m"))
    await store.close()


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

    store = SQLiteStore(path, MAPPINGS, SystemClock())
    kept = await store.get_many(Counter, list(versions))
    assert all(kept[key].version >= version for key, version in versions.items())
    with_unacknowledged = await store.get_many(Counter, [f"{w}-{n}" for w in range(1, 17) for n in range(3)])
    assert all(counter.left == counter.version for counter in with_unacknowledged.values())
    expected = Tally(
        int(key.split("-")[0]) * 1000 + left
        for key, counter in with_unacknowledged.items()
        for left in range(1, counter.left + 1)
    )
    assert Tally(event.available for event in await recorded(store) if isinstance(event, StockLow)) == expected
    await store.close()
