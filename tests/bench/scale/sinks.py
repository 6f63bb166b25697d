"""The destinations to which `fill` writes rows: SQLite files and DynamoDB tables."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from functions.runtime.store.dynamodb.transactions import Actions
from functions.runtime.store.planning import Write
from functions.runtime.store.sqlite import rows
from functions.runtime.store.sqlite.file import SQLiteFile

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
        rows.apply(self._file.writer.execute, write)

    def close(self) -> None:
        """Write the remaining rows and close."""
        self._file.writer.execute("COMMIT")
        self._file.close()


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
            answer = self._write(
                RequestItems={self._table: [{"PutRequest": {"Item": item}} for item in batch]}
            )
        except self._busy:  # DynamoDB Local waited too long for its one lock
            self._items = batch + self._items
            return
        self._items += [
            left["PutRequest"]["Item"] for left in answer.get("UnprocessedItems", {}).get(self._table, [])
        ]
