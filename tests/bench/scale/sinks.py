"""Where `fill` puts rows: files of SQLite, and tables of DynamoDB."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from functions.runtime.store.dynamodb.transactions import Actions
from functions.runtime.store.planning import Write
from functions.runtime.store.sqlite import rows
from functions.runtime.store.sqlite.file import SQLiteFile

_BATCH = 25  # items that BatchWriteItem takes


class SQLiteSink:
    """One file, in one transaction, which needs memory of the file's size and no patience of the disk's."""

    def __init__(self, path: Path) -> None:
        self._file = SQLiteFile(path, sqlite3.Connection)
        for setting in ("synchronous = OFF", "cache_size = -4000000"):
            self._file.writer.execute(f"PRAGMA {setting}")
        self._file.writer.execute("BEGIN")

    def add(self, write: Write) -> None:
        """Take one."""
        rows.apply(self._file.writer.execute, write)

    def close(self) -> None:
        """Finish."""
        self._file.writer.execute("COMMIT")
        self._file.close()


class DynamoDBSink:
    """One table, by batches."""

    def __init__(self, client: Any, table: str) -> None:
        self._actions = Actions(table)
        self._write = client.batch_write_item
        self._busy = client.exceptions.InternalServerError
        self._table = table
        self._items: list[Any] = []

    def add(self, write: Write) -> None:
        """Take one."""
        self._items += [action["Put"]["Item"] for action in self._actions.write(write, None, "0")]
        while len(self._items) >= _BATCH:
            self._flush()

    def close(self) -> None:
        """Finish."""
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
