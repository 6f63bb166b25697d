"""What was erased is in no file of the store any more: neither in its pages nor in its log."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from functions.runtime.clock import ManualClock
from functions.runtime.store.port import Changes, Ref
from functions.runtime.store.sqlite.store import SQLiteStore
from functions.runtime.tests.store_kinds import MAPPINGS, Document, put

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def secret(chance: random.Random) -> str:
    """Of some length."""
    return "secret_" * chance.randint(1, 120)


def on_disk(path: Path) -> bytes:
    """All bytes of all files."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()))


async def remove(store: SQLiteStore, document: str) -> None:
    await store.transact(
        [Ref(Document, document)], lambda found: Changes(None, delete=[each for each in found if each])
    )


async def test_what_was_erased_leaves_no_byte_behind(path: Path) -> None:
    """Rows that grow make SQLite move others about, of which it leaves copies in the unused parts of pages."""
    store, chance = SQLiteStore(path, MAPPINGS, ManualClock()), random.Random(0)
    everybody = [f"d{number}" for number in range(400)]
    for some in (everybody, *(chance.choices(everybody, k=250) for _ in range(4))):
        await asyncio.gather(*(put(store, Document(name, tags={"text": [secret(chance)]})) for name in some))
    assert b"secret_" in on_disk(path)
    await asyncio.gather(*(remove(store, name) for name in everybody[::2]))
    await asyncio.gather(*(put(store, Document(name)) for name in everybody[1::2]))
    store.request_purge()
    await store.expire(LONG_AGO)

    assert b"secret_" not in on_disk(path)
    assert len(await store.get_many(Document, everybody)) == 200
    await store.close()


async def test_what_is_removed_is_overwritten_at_once_whatever_the_size_of_the_file(path: Path) -> None:
    store = SQLiteStore(path, MAPPINGS, ManualClock())
    await put(store, Document("d", tags={"text": ["secret"]}), Document("e"))
    await remove(store, "d")
    await store.close()  # merges the log

    assert b"secret" not in on_disk(path)


async def test_writers_wait_while_traces_are_removed_and_lose_nothing(path: Path) -> None:
    store = SQLiteStore(path, MAPPINGS, ManualClock())
    writing = [put(store, Document(f"d{number}", owner="me")) for number in range(60)]
    await asyncio.gather(*writing[:30], store.expire(LONG_AGO), *writing[30:])

    assert len((await store.page(Document, "owner", "me", limit=100)).items) == 60
    await store.close()


async def test_traces_that_somebody_still_reads_go_with_the_next_sweep(path: Path) -> None:
    store = SQLiteStore(path, MAPPINGS, ManualClock(), timeout=0.1)
    await put(store, Document("d", tags={"text": ["secret"]}))
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    assert reader.execute("SELECT COUNT(*) FROM entity").fetchone() == (1,)
    await remove(store, "d")
    store.request_purge()
    await store.expire(LONG_AGO)
    assert b"secret" in on_disk(path)
    reader.close()
    await store.expire(LONG_AGO)

    assert b"secret" not in on_disk(path)
    await store.close()
