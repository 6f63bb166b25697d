"""One SQLite file: its schema and upgrades, its lock, its health and its connections."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from events.sqlite_group_commit import SchemaTooNew, migrate
from functions.runtime.settings import SettingsError
from functions.runtime.store.sqlite.bitmaps import Bitmap

# Entities are stored by row number, because a B-tree by key would hold whole rows in its inner pages and become deep.
# Index entries contain the row number, which saves one look-up for each entity of a page.
_ENTITY = """
CREATE TABLE entity (
    row INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, data BLOB NOT NULL,
    keys BLOB NOT NULL, expires INTEGER, UNIQUE (kind, id)
)"""
_ENTITY_EXPIRY = "CREATE INDEX entity_expiry ON entity (expires) WHERE expires IS NOT NULL"
_ENTRY = """
CREATE TABLE entry (
    kind TEXT NOT NULL, name TEXT NOT NULL, part TEXT NOT NULL, sort TEXT NOT NULL, id TEXT NOT NULL,
    row INTEGER NOT NULL, PRIMARY KEY (kind, name, part, sort, id)
) WITHOUT ROWID"""

_EPOCH = (
    "CREATE TABLE epoch (id INTEGER PRIMARY KEY CHECK (id = 1), began INTEGER NOT NULL)",
    "INSERT INTO epoch VALUES (1, 0)",
)

# See bitmaps.py.
_BITMAPS = (
    "CREATE TABLE searched (number INTEGER PRIMARY KEY, row INTEGER NOT NULL UNIQUE, sort TEXT NOT NULL)",
    """
CREATE TABLE bitmap (
    kind TEXT NOT NULL, name TEXT NOT NULL, part TEXT NOT NULL, block INTEGER NOT NULL, numbers BLOB NOT NULL,
    PRIMARY KEY (kind, name, part, block)
) WITHOUT ROWID""",
)

SCHEMA = (
    _ENTITY,
    _ENTITY_EXPIRY,
    _ENTRY,
    """
CREATE TABLE outbox (
    id TEXT PRIMARY KEY, type TEXT NOT NULL, source TEXT NOT NULL, subject TEXT NOT NULL, time INTEGER NOT
    NULL, data BLOB NOT NULL, correlation_id TEXT NOT NULL, traceparent TEXT NOT NULL, tracestate TEXT NOT
    NULL
) WITHOUT ROWID""",
    """
CREATE TABLE guard (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, answer BLOB, expires INTEGER NOT NULL
) WITHOUT ROWID""",
    "CREATE INDEX guard_expiry ON guard (expires)",
    "CREATE TABLE heartbeat (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL)",
    "INSERT INTO heartbeat VALUES (1, 0)",
    *_EPOCH,
    *_BITMAPS,
)

UPGRADES = (
    (
        "DROP INDEX entity_expiry",
        "ALTER TABLE entity RENAME TO entity_1",
        "ALTER TABLE entry RENAME TO entry_1",
        _ENTITY,
        "INSERT INTO entity SELECT NULL, kind, id, version, data, keys, expires FROM entity_1 ORDER BY kind, id",
        _ENTITY_EXPIRY,
        _ENTRY,
        "INSERT INTO entry SELECT kind, name, part, sort, id, entity.row FROM entry_1 JOIN entity USING (kind, id)"
        " ORDER BY kind, name, part, sort, id",
        "DROP TABLE entity_1",
        "DROP TABLE entry_1",
    ),
    _EPOCH,
    (
        *_BITMAPS,
        "INSERT INTO searched SELECT NULL, row, MAX(sort) FROM entry WHERE name = 'words' GROUP BY row ORDER BY 3",
        "INSERT INTO bitmap SELECT kind, name, part, number / 7168, bitmap(number % 7168)"
        " FROM entry JOIN searched USING (row) GROUP BY kind, name, part, number / 7168",
    ),
)
"""The statements that migrate version 1 to 2, and so on."""


_CHECKED_AT_START = 4 * 2**20
"""Maximum size, in bytes, of a file that is checked completely at start, which takes about 10 ms. For a larger file the
start checks only the beginning and the length; a backup checks all of it."""
_REWRITTEN = 16 * 2**20
"""Maximum size, in bytes, of a file that `purge` rewrites. This takes less than half a second, while writers wait."""


class StoreFileError(SettingsError):
    """A store's file cannot be used. The message names it and says what to do."""


class StoreInUseError(StoreFileError):
    """Another process, or another store of this process, has the file open for writing."""


class CorruptFileError(StoreFileError):
    """The file is damaged, or is not a SQLite file."""


class SQLiteFile:
    """A file with one owner. It has a `writer` and a `reader` connection, and a lock that excludes other owners.

    Processes that only read (a backup, a shell) may open the file at the same time. The constructor raises
    StoreFileError if the file is in use, damaged, or written by a later release; the file is then unchanged.
    """

    def __init__(self, path: Path, connection: type[sqlite3.Connection]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(path)
        self._path = path
        self._factory = connection
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            os.close(self._lock)
            if isinstance(error, sqlite3.OperationalError):
                raise StoreFileError(f"STORE_URL: {path} cannot be opened: {error}") from error
            raise _corrupt(path, str(error)) from error
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Close both connections and release the lock. Closing merges the write-ahead log into the file."""
        self.reader.close()
        self.writer.close()
        os.close(self._lock)

    def purge(self) -> bool:
        """Erase the traces of removed rows. Returns whether that worked. It must not be called within a transaction.

        Traces are in the write-ahead log, and in unused parts of pages, where SQLite may keep a copy of a row that it
        moved. Unused parts are erased only in files of up to 16 MiB.
        """
        execute = self.writer.execute
        pages, page = (execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        if pages * page <= _REWRITTEN:
            execute("VACUUM")
        busy, _, _ = execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def _open(self) -> None:
        if self._path.exists():
            check(self._path, _CHECKED_AT_START)
        self.writer = self._connect()
        self.writer.create_aggregate("bitmap", 1, Bitmap)  # type: ignore[arg-type]  # the stub knows only integers
        try:
            migrate(self.writer, self._path, SCHEMA, UPGRADES)
        except SchemaTooNew as error:
            self.writer.close()
            raise StoreFileError(f"STORE_URL: {error}") from error
        except BaseException:
            self.writer.close()
            raise
        self.reader = self._connect()
        self.reader.execute("PRAGMA query_only = ON")
        self.reader.execute("PRAGMA mmap_size = 2147418112")  # the maximum; a read takes a third less time

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=0,  # waiting would block the event loop; the group commit retries by itself
            isolation_level=None,
            check_same_thread=False,  # COMMIT runs in a separate thread, but never during another statement
            factory=self._factory,
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # removed rows are overwritten with zeros
        connection.execute("PRAGMA cache_size = -16384")  # 16 MiB, for the inner pages of a million entities
        connection.execute("PRAGMA temp_store = MEMORY")
        return connection


def check(path: Path, whole_up_to: int | None = None) -> None:
    """Raise CorruptFileError for a damaged database. A file of more than `whole_up_to` bytes is not read completely.

    The check only reads. It sees the committed data, even while an owner writes.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            size = path.stat().st_size
            pages, page = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
            if size < pages * page and not _has_log(path):
                raise _corrupt(path, f"it has {size} of {pages * page} bytes")
            if whole_up_to is None or size <= whole_up_to:
                (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if found != "ok":
                    raise _corrupt(path, found)
    except sqlite3.DatabaseError as error:
        raise _corrupt(path, str(error)) from error


def _has_log(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0


def _corrupt(path: Path, why: str) -> CorruptFileError:
    return CorruptFileError(
        f"STORE_URL: {path} is damaged ({' '.join(why.split())}): put back a backup (make restore), or move it away"
    )


def _lock(path: Path) -> int:
    # The kernel releases the lock when the process ends, even after a crash.
    fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise StoreInUseError(f"STORE_URL: {path} is in use: a store has one owner at a time") from error
    return fd
