"""The destinations to which `fill` writes rows: SQLite files, schemas of PostgreSQL, and DynamoDB tables."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import asyncpg

from functions.runtime.store.dynamodb.transactions import Actions
from functions.runtime.store.planning import Write
from functions.runtime.store.sqlite import store
from functions.runtime.store.sqlite.file import SQLiteFile

_COPIED = 5_000
_BATCH = 25  # the most items that BatchWriteItem accepts


class SQLiteSink:
    """A SQLite file, written in one transaction: that needs memory of the file's size and hardly waits for the disk."""

    def __init__(self, path: Path) -> None:
        self._file = SQLiteFile(path, sqlite3.Connection)
        for setting in ("synchronous = OFF", "cache_size = -4000000"):
            self._file.writer.execute(f"PRAGMA {setting}")
        self._file.writer.execute("BEGIN")

    def add(self, write: Write) -> None:
        """Add a row."""
        store.apply(self._file.writer.execute, write)

    def close(self) -> None:
        """Write the remaining rows and close."""
        self._file.writer.execute("COMMIT")
        self._file.close()


class PostgresSink:
    """A schema of PostgreSQL, written by COPY."""

    def __init__(self, url: str, schema: str) -> None:
        self._schema = schema
        self._rows: dict[str, list[tuple[Any, ...]]] = {"entity": [], "entry": []}
        self._runner = asyncio.Runner()
        self._connection = self._runner.run(asyncpg.connect(url))

    def add(self, write: Write) -> None:
        """Add a row."""
        new = write.new
        assert new
        self._rows["entity"].append((write.kind, write.id, new.version, 0, new.expires, new.keys, new.data))
        self._rows["entry"] += [(write.kind, *key, write.id) for key in write.added]
        if len(self._rows["entity"]) >= _COPIED:
            self._flush()

    def close(self) -> None:
        """Write the remaining rows, and vacuum as autovacuum would soon."""
        self._flush()
        for table in self._rows:
            self._runner.run(self._connection.execute(f"VACUUM ANALYZE {self._schema}.{table}"))
        self._runner.run(self._connection.close())
        self._runner.close()

    def _flush(self) -> None:
        for table, waiting in self._rows.items():
            self._runner.run(self._connection.copy_records_to_table(table, schema_name=self._schema, records=waiting))
            waiting.clear()


class DynamoDBSink:
    """A DynamoDB table, written in batches."""

    def __init__(self, client: Any, table: str) -> None:
        self._actions = Actions(table)
        self._write = client.batch_write_item
        self._busy = client.exceptions.InternalServerError
        self._table = table
        self._items: list[Any] = []

    def add(self, write: Write) -> None:
        """Add a row."""
        self._items += [action["Put"]["Item"] for action in self._actions.write(write, None, "0")]
        while len(self._items) >= _BATCH:
            self._flush()

    def close(self) -> None:
        """Write the remaining rows and close."""
        while self._items:
            self._flush()

    def _flush(self) -> None:
        batch, self._items = self._items[:_BATCH], self._items[_BATCH:]
        try:
            answer = self._write(RequestItems={self._table: [{"PutRequest": {"Item": item}} for item in batch]})
        except self._busy:  # DynamoDB Local waited too long for its one lock
            self._items = batch + self._items
            return
        self._items += [left["PutRequest"]["Item"] for left in answer.get("UnprocessedItems", {}).get(self._table, [])]
