"""Statements of `Store.search` on SQLite."""

from __future__ import annotations

from collections.abc import Sequence

_COUNT = """
SELECT COUNT(*), MIN(sort) FROM (
    SELECT sort FROM entry WHERE kind = ? AND name = ? AND part = ?{below} ORDER BY sort DESC LIMIT ?
)"""
_BELOW = " AND sort < ?"
_HAS = """EXISTS (
    SELECT 1 FROM entry AS other
    WHERE other.kind = ? AND other.name = ? AND other.part = ? AND other.sort = entry.sort AND other.id = entry.id
)"""
_CONTAINS = " AND EXISTS (SELECT 1 FROM entity WHERE entity.row = entry.row{tests})"
_ARM = "SELECT sort, id, row FROM entry WHERE kind = ? AND name = ? AND part = ?"
_SEARCH = """
SELECT sort, id, (SELECT data FROM entity WHERE entity.row = found.row AND (expires IS NULL OR expires > ?))
FROM ({arms} ORDER BY sort DESC LIMIT ?) AS found
"""


def count_statement(listings: int, *, below: bool) -> str:
    """Return the statement that counts the entries of listings, and selects the lowest sort key among the counted.

    Its parameters, for each listing, are kind, index, partition, `below`, and the maximum to count.
    """
    return " UNION ALL ".join([_COUNT.format(below=_BELOW if below else "")] * listings)


def search_statement(driver: int, others: Sequence[int], *, below: bool, floor: bool, containing: int) -> str:
    """Return the statement that selects sort key, id and data of entities that meet all terms.

    `driver` and `others` are the numbers of listings in the terms. The parameters are the current time; for each
    listing of the driver its kind, index, partition, `below` and `floor`, followed by the kind, index and partition of
    each listing of the other terms, and by what data must contain; and the limit. Data are NULL for an entity that has
    expired.
    """
    bounds = (_BELOW if below else "") + (" AND sort >= ?" if floor else "")
    terms = "".join(f" AND ({' OR '.join([_HAS] * count)})" for count in others)
    contains = _CONTAINS.format(tests=" AND instr(data, ?)" * containing) if containing else ""
    return _SEARCH.format(arms=" UNION ALL ".join([_ARM + bounds + terms + contains] * driver))
