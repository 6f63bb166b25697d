"""Group commit: a transaction for many jobs, and nothing is forgotten when the disk is full.

The tests of the stores (functions/runtime/tests/test_store_groups.py) cover groups, failing commits and timeouts.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from events.sqlite_group_commit import GroupCommit, StorageError, connect


class Table:
    """A table of one column, with its group commit."""

    def __init__(self, path: Path) -> None:
        self.db = connect(path / "j.db", ("CREATE TABLE t (a)",))
        self.commits = GroupCommit(self.db)
        self._path = path

    def inserting(self, value: object) -> Callable[[], object]:
        return partial(self.db.execute, "INSERT INTO t (a) VALUES (?)", (value,))

    def deleting(self, value: object) -> Callable[[], object]:
        return partial(self.db.execute, "DELETE FROM t WHERE a = ?", (value,))

    def rows(self) -> list[object]:
        """The rows that another connection sees."""
        with sqlite3.connect(self._path / "j.db") as db:
            found = [row[0] for row in db.execute("SELECT a FROM t ORDER BY rowid")]
        db.close()
        return found


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path)


async def test_committed_rows_are_there_and_the_order_of_the_calls_is_kept(table: Table) -> None:
    after: list[int] = []

    async def write(number: int) -> None:
        await table.commits.run(table.inserting(number), lambda _: after.append(number))

    await asyncio.gather(*map(write, range(600)))
    assert table.rows() == after == list(range(600))
    await table.commits.close()


async def test_a_later_job_is_written_without_any_other(table: Table) -> None:
    table.commits.run_later(table.inserting(1))
    async with asyncio.timeout(5):
        while table.rows() != [1]:  # noqa: ASYNC110 - another process's view is polled
            await asyncio.sleep(0.005)
    await table.commits.close()


async def test_closing_writes_all_later_jobs_and_refuses_new_ones(table: Table) -> None:
    for number in range(600):  # more than one group takes
        table.commits.run_later(table.inserting(number))
    assert await table.commits.close()
    assert table.rows() == list(range(600))
    assert not await table.commits.close()
    with pytest.raises(StorageError):
        await table.commits.run(table.inserting(2))


async def test_a_cancelled_caller_leaves_the_others_of_its_group_alone(table: Table) -> None:
    tasks = [asyncio.create_task(table.commits.run(table.inserting(number))) for number in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[1], asyncio.CancelledError)
    assert {0, 2} <= set(table.rows())
    await table.commits.close()


async def test_a_full_disk_fails_the_callers_that_wait_and_later_jobs_are_tried_again(table: Table) -> None:
    await table.commits.run(table.inserting("old"))
    pages = table.db.execute("PRAGMA page_count").fetchone()[0]
    table.db.execute(f"PRAGMA max_page_count={pages}")
    table.commits.run_later(table.deleting("old"))
    with pytest.raises(StorageError, match="full"):
        await table.commits.run(table.inserting(b"x" * 100_000))
    assert table.rows() == ["old"]
    table.db.execute("PRAGMA max_page_count=1000000")
    await table.commits.run(table.inserting("new"))
    assert table.rows() == ["new"]
    await table.commits.close()


async def test_closing_ends_although_later_jobs_fail(table: Table) -> None:
    pages = table.db.execute("PRAGMA page_count").fetchone()[0]
    table.db.execute(f"PRAGMA max_page_count={pages}")
    table.commits.run_later(table.inserting(b"x" * 100_000))
    async with asyncio.timeout(5):
        await table.commits.close()
    assert table.rows() == []
