"""Groups of writes: together or not at all, and nothing is forgotten when the disk is full."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from events.journal import Journal, StorageError, connect

INSERT = "INSERT INTO t (a) VALUES (?)"
DELETE = "DELETE FROM t WHERE a = ?"


def opened(path: Path) -> tuple[sqlite3.Connection, Journal]:
    db = connect(path / "j.db", "CREATE TABLE t (a)", 1)
    return db, Journal(db, (INSERT, DELETE))


def rows(path: Path) -> list[object]:
    with sqlite3.connect(path / "j.db") as db:
        found = [row[0] for row in db.execute("SELECT a FROM t ORDER BY rowid")]
    db.close()
    return found


async def test_what_was_committed_is_there_and_the_order_of_the_calls_is_kept(tmp_path: Path) -> None:
    _, journal = opened(tmp_path)
    after: list[int] = []
    commits = [
        journal.commit([(INSERT, (number,))], lambda number=number: after.append(number))  # type: ignore[misc] # bound
        for number in range(100)
    ]
    await asyncio.gather(*commits)
    assert rows(tmp_path) == after == list(range(100))
    await journal.close()


async def test_what_nobody_waits_for_is_written_soon(tmp_path: Path) -> None:
    _, journal = opened(tmp_path)
    journal.later(INSERT, (1,))
    async with asyncio.timeout(5):
        while rows(tmp_path) != [1]:  # noqa: ASYNC110 - another process's view is polled
            await asyncio.sleep(0.005)
    await journal.close()


async def test_closing_writes_what_is_left(tmp_path: Path) -> None:
    _, journal = opened(tmp_path)
    journal.later(INSERT, (1,))
    await journal.close()
    assert rows(tmp_path) == [1]
    with pytest.raises(StorageError):
        await journal.commit([(INSERT, (2,))])


async def test_one_waiter_that_is_cancelled_takes_no_other_with_it(tmp_path: Path) -> None:
    _, journal = opened(tmp_path)

    async def write(number: int) -> None:
        await journal.commit([(INSERT, (number,))])

    tasks = [asyncio.create_task(write(number)) for number in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in found] == [type(None), asyncio.CancelledError, type(None)]
    assert rows(tmp_path) == [0, 1, 2]
    await journal.close()


async def test_a_full_disk_fails_those_who_wait_and_keeps_the_rest_for_later(tmp_path: Path) -> None:
    db, journal = opened(tmp_path)
    await journal.commit([(INSERT, ("old",))])
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count={pages}")
    journal.later(DELETE, ("old",))
    with pytest.raises(StorageError, match="full"):
        await journal.commit([(INSERT, (b"x" * 100_000,))])
    assert rows(tmp_path) == ["old"]
    db.execute("PRAGMA max_page_count=1000000")
    await journal.commit([(INSERT, ("new",))])
    assert rows(tmp_path) == ["new"]
    await journal.close()
