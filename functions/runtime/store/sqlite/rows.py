"""Statements that read and write entities and their index entries as rows of SQLite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from functions.runtime.store.planning import Write

GET = "SELECT version, data, keys, expires FROM entity WHERE kind = ? AND id = ?"
GET_DATA = "SELECT data FROM entity WHERE kind = ? AND id = ? AND (expires IS NULL OR expires > ?)"
_ROW = "SELECT row FROM entity WHERE kind = ? AND id = ?"
_INSERT = "INSERT INTO entity VALUES (NULL, ?, ?, ?, ?, ?, ?)"
_UPDATE_DATA = "UPDATE entity SET version = ?, data = ? WHERE kind = ? AND id = ?"
_UPDATE = "UPDATE entity SET version = ?, data = ?, keys = ?, expires = ? WHERE kind = ? AND id = ?"
_DELETE = "DELETE FROM entity WHERE kind = ? AND id = ?"
_ADD_ENTRY = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)"
_REMOVE_ENTRY = "DELETE FROM entry WHERE kind = ? AND name = ? AND part = ? AND sort = ? AND id = ?"
_PAGE = """
SELECT entry.sort, entry.id, entity.data FROM entry
CROSS JOIN entity ON entity.row = entry.row
WHERE entry.kind = ? AND entry.name = ? AND entry.part = ?{after}{until}
AND (entity.expires IS NULL OR entity.expires > ?)
ORDER BY entry.sort {way}, entry.id {way} LIMIT ?
"""


def page_statement(*, after: bool, until: bool, descending: bool) -> str:
    """Return the statement that selects sort key, id and data of a partition's entities.

    Its parameters are kind, index, partition, the sort key and id of `after`, `until`, the current time, and the limit.
    """
    return _PAGE.format(
        after=f" AND (entry.sort, entry.id) {'<' if descending else '>'} (?, ?)" if after else "",
        until=" AND entry.sort <= ?" if until else "",
        way="DESC" if descending else "ASC",
    )


def apply(execute: Callable[[str, tuple[Any, ...]], Any], write: Write) -> None:
    """Write or remove one entity and its index entries."""
    kind, key, old, new = write.kind, write.id, write.old, write.new
    row = None
    if new is None:
        execute(_DELETE, (kind, key))
    elif old is None:
        row = execute(_INSERT, (kind, key, *new)).lastrowid
    elif old[2:] == new[2:]:
        execute(_UPDATE_DATA, (new.version, new.data, kind, key))
    else:
        execute(_UPDATE, (*new, kind, key))
    for name, part, sort in write.removed:
        execute(_REMOVE_ENTRY, (kind, name, part, sort, key))
    if write.added and row is None:
        (row,) = execute(_ROW, (kind, key)).fetchone()
    for name, part, sort in write.added:
        execute(_ADD_ENTRY, (kind, name, part, sort, key, row))
