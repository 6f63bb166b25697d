"""The file of a store on SQLite: files of earlier and later releases, damaged ones, and what a list costs."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from functions.runtime.clock import ManualClock
from functions.runtime.store.port import Changes, Ref, Term
from functions.runtime.store.search import COUNTED
from functions.runtime.store.sqlite.file import UPGRADES, CorruptFileError, StoreFileError, check
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

VERSION = len(UPGRADES) + 1
SCHEMA_1 = """
CREATE TABLE entity (
    kind TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, data BLOB NOT NULL,
    keys BLOB NOT NULL, expires INTEGER, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX entity_expiry ON entity (expires) WHERE expires IS NOT NULL;
CREATE TABLE entry (
    kind TEXT NOT NULL, name TEXT NOT NULL, part TEXT NOT NULL, sort TEXT NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (kind, name, part, sort, id)
) WITHOUT ROWID;
"""
"""What the first release had otherwise."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def opened(path: Path, **options: Any) -> SQLiteStore:
    return SQLiteStore(path, MAPPINGS, ManualClock(), **options)


async def filled(path: Path, documents: int = 3) -> None:
    """Documents, one that expires, a counter with its event, and a guard."""
    store = opened(path)
    for number in range(documents):
        await put(store, Document(f"d{number}", owner="me", rank=f"{number}", text="red kettle"))
    await put(store, Document("old", owner="me", rank="z", ends=datetime.fromisoformat("2031-01-01T00:00Z")))
    await store.update(Counter, "c", adding(3, [happened(1)]), idempotency=inbox_record("m"))
    await store.close()


def made_old(path: Path) -> None:
    """Take the file back to the first release's schema."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(
            f"""BEGIN; DROP TABLE epoch; DROP TABLE searched; DROP TABLE bitmap; DROP INDEX entity_expiry;
            ALTER TABLE entity RENAME TO e; ALTER TABLE entry RENAME TO n; {SCHEMA_1}
            INSERT INTO entity SELECT kind, id, version, data, keys, expires FROM e;
            INSERT INTO entry SELECT kind, name, part, sort, id FROM n;
            DROP TABLE e; DROP TABLE n; PRAGMA user_version = 1; COMMIT;"""  # noqa: S608 - constants
        )


def schema(path: Path) -> tuple[int, set[tuple[str, str]]]:
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
        version = db.execute("PRAGMA user_version").fetchone()[0]
    return version, {(name, re.sub(r'[\s"]+', "", sql)) for name, sql in found}


async def holds_everything(path: Path) -> None:
    store = opened(path)
    assert await store.get(Counter, "c") == Counter("c", 3, version=1)
    listed = await store.page(Document, "owner", "me", limit=9, descending=True)
    assert [document.id for document in listed.items] == ["old", "d2", "d1", "d0"]
    assert await recorded(store) == [happened(1)]
    assert await store.expire(datetime.fromisoformat("2031-01-01T00:00Z")) == 2
    await put(store, Document("d1", owner="you"))
    listed = await store.page(Document, "owner", "me", limit=9)
    assert [document.id for document in listed.items] == ["d0", "d2"]
    assert [document.id for document in (await store.page(Document, "words", "red", limit=9)).items] == [
        "d0",
        "d2",
    ]
    found = await store.search(Document, [Term("words", ["red"]), Term("words", ["kettle"])], limit=9)
    assert [document.id for document in found.items] == ["d2", "d0"]
    await store.close()


async def test_a_file_of_the_first_release_becomes_one_of_this(path: Path, tmp_path: Path) -> None:
    await filled(path)
    await opened(tmp_path / "fresh.db").close()
    made_old(path)

    await opened(path).close()

    assert schema(path) == schema(tmp_path / "fresh.db")
    await holds_everything(path)


def opened_elsewhere(path: Path, statements: int) -> int:
    """The exit code of a process that opens the store and is killed after so many statements."""
    command = [sys.executable, "-m", "functions.runtime.tests.store_migration", str(path), str(statements)]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode


@pytest.mark.parametrize("old", [0, 1])
async def test_a_change_of_the_schema_survives_a_kill_before_every_statement(path: Path, old: int) -> None:
    if old:
        await filled(path)
        made_old(path)
    kills = 0
    while (code := opened_elsewhere(path, kills)) != 0:
        assert code == -9
        assert old <= schema(path)[0] < VERSION
        kills += 1

    assert kills > 8
    assert schema(path)[0] == VERSION
    if old:
        await holds_everything(path)


async def test_a_file_of_a_later_release_is_refused_and_left_alone(path: Path) -> None:
    await filled(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 99")

    with pytest.raises(StoreFileError, match="99"):
        opened(path)

    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA user_version = {VERSION}")
    await holds_everything(path)  # the refusal let go of the lock, too


def spoil(path: Path, how: str) -> bytes:
    content = bytearray(path.read_bytes())
    if how == "another file":
        content[:] = b"<html>" * 2000
    elif how == "cut off":
        del content[-8192:]
    else:
        content[4096:8192] = bytes(4096)  # a page of zeros, as disks leave it
    path.write_bytes(content)
    return bytes(content)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


DAMAGES = ["another file", "cut off", "a page is lost"]


@pytest.mark.parametrize("how", DAMAGES)
async def test_a_damaged_file_is_refused_and_left_alone(path: Path, how: str) -> None:
    await filled(path, documents=100)
    check(path)
    before = spoil(path, how)

    with pytest.raises(CorruptFileError, match=r"store\.db is damaged"):
        opened(path)

    assert content_of(path) == before


def test_a_process_says_why_it_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "orders.db").write_text("no database" * 1000)
    environ = {"STORE_URL": f"sqlite:///{tmp_path}", "PATH": ""}

    done = subprocess.run(
        [sys.executable, "-m", "functions.orders.main"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith(f"orders: STORE_URL: {tmp_path}/orders.db is damaged (file is not a database)")
    assert "Traceback" not in done.stderr


class Watched(sqlite3.Connection):
    """Keeps the statements that were executed."""

    seen: set[str] = set()  # noqa: RUF012 - of all connections of the one test

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        self.seen.add(sql)
        return super().execute(sql, *values)


async def test_no_statement_scans_or_sorts(path: Path) -> None:
    store = opened(path, connection=Watched)
    await put(store, *(Document(f"d{number}", owner="me", rank=f"{number}") for number in range(4)))
    await put(store, Document("d1", owner="you", rank="1"))
    for descending in (False, True):
        for until in (None, "9"):
            page = await store.page(Document, "owner", "me", limit=1, descending=descending, until=until)
            await store.page(
                Document, "owner", "me", limit=1, cursor=page.next_cursor, descending=descending, until=until
            )
    many = [Document(f"e{number:03}", "me", f"{number:03}", "all some") for number in range(COUNTED)]
    await store.transact([Ref(Document, document.id) for document in many], lambda _: Changes(None, many))
    for below in (None, "9"):
        await store.search(Document, [Term("words", ["all", "some"])], limit=1, below=below)
        await store.search(
            Document, [Term("words", ["all", "some"]), Term("owner", ["me", "you"])], limit=1, below=below
        )
    await store.get_many(Document, ["d1"])
    await store.update(Counter, "c", adding(3, [happened(1)]), idempotency=inbox_record("m"))
    await store.update(Counter, "c", adding(), idempotency=inbox_record("n"))
    await store.outbox_published([(await store.outbox(datetime.fromisoformat("2040-01-01T00:00Z"), 9))[0].id])
    await store.outbox_state()
    await store.expire(datetime.fromisoformat("2040-01-01T00:00Z"))
    await store.close()

    plans = explained(path, {sql for sql in Watched.seen if re.match(r"\s*(SELECT|UPDATE|DELETE|INSERT)", sql)})

    assert len(plans) > 20
    # The outbox lies in the order in which it is read, the heartbeat and the epoch are one row, subqueries have limits,
    # and a search that reads numbers from an array sorts at most `FEW`.
    harmless = re.compile(r"SCAN (outbox|heartbeat|epoch|found|\(subquery-\d+\))|SCAN CONSTANT ROW")
    bad = {
        (sql, step)
        for sql, step in plans
        if re.search("SCAN|TEMP B-TREE", step) and not harmless.search(step) and "json_each" not in sql
    }
    assert not bad


def explained(path: Path, statements: set[str]) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as db:
        return [
            (sql, step)
            for sql in statements
            for *_, step in db.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?"))
        ]
