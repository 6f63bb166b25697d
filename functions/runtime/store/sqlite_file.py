"""One SQLite file: its lock, its schema and its connections."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE entity (
    kind TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, data BLOB NOT NULL,
    keys BLOB NOT NULL, expires INTEGER, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX entity_expiry ON entity (expires) WHERE expires IS NOT NULL;
CREATE TABLE entry (
    kind TEXT NOT NULL, name TEXT NOT NULL, part TEXT NOT NULL, sort TEXT NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (kind, name, part, sort, id)
) WITHOUT ROWID;
CREATE TABLE outbox (
    id TEXT PRIMARY KEY, type TEXT NOT NULL, source TEXT NOT NULL, subject TEXT NOT NULL, time INTEGER NOT
    NULL, data BLOB NOT NULL, correlation_id TEXT NOT NULL, traceparent TEXT NOT NULL, tracestate TEXT NOT
    NULL
) WITHOUT ROWID;
CREATE TABLE guard (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, answer BLOB, expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX guard_expiry ON guard (expires);
CREATE TABLE heartbeat (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL);
INSERT INTO heartbeat VALUES (1, 0);
"""


class StoreInUseError(RuntimeError):
    """Another process (or another store of this one) has the file open for writing."""


class SchemaTooNewError(RuntimeError):
    """The file was written by a later release, which this one cannot read safely."""


class SQLiteFile:
    """A file with one owner: `writer` and `reader` connections, and the lock that keeps other owners away.

    Whoever only reads (a backup, a person with a shell) may open it beside us. Raises StoreInUseError and
    SchemaTooNewError.
    """

    def __init__(self, path: Path, connection: type[sqlite3.Connection]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(path)
        self._path = path
        self._factory = connection
        try:
            self.writer = self._connect()
            _migrate(self.writer, path)
            self.reader = self._connect()
            self.reader.execute("PRAGMA query_only = ON")
            self.reader.execute("PRAGMA mmap_size = 1073741824")  # a third less per read of a large file
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Close both connections, which merges the log into the file, and let go of the lock."""
        self.reader.close()
        self.writer.close()
        os.close(self._lock)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=0,  # waiting would hold the event loop; the group commit tries again by itself
            isolation_level=None,
            check_same_thread=False,  # COMMIT runs in a thread of its own, never beside another statement
            factory=self._factory,
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -16384")  # KiB: the inner pages of a million entities
        connection.execute("PRAGMA temp_store = MEMORY")
        return connection


def _lock(path: Path) -> int:
    # A lock of the kernel's: it ends with the process, however that ends.
    fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise StoreInUseError(f"{path} is in use: a store has one owner at a time") from error
    return fd


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        connection.close()
        raise SchemaTooNewError(
            f"{path} has schema {version}, this release knows up to {SCHEMA_VERSION}: use the later release"
        )
    if version == 0:
        connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
