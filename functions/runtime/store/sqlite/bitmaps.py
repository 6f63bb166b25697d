"""Bitmaps of index partitions, by which a search for several words finds the few entities that have all of them.

An entity with an entry in `WORDS` has a number. A partition has a row for each block of numbers among its entities, so
that a word of a hundred thousand entities takes fourteen rows, which are combined as integers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import and_
from typing import Any

from functions.runtime.store.codec import decode_keys
from functions.runtime.store.planning import Stored
from functions.runtime.store.port import WORDS, IndexKey
from functions.runtime.store.search import FEW, SEARCHED, Query

_BYTES = 896
"""Size of a bitmap. A longer row of such a table would take a page of its own."""
_BLOCK = 8 * _BYTES
_SPARSE = 64
"""A block of up to so many numbers is stored as a list of them, which takes no more space than their index entries."""

_NUMBER = "SELECT number FROM searched WHERE row = ?"
_ADD = "INSERT INTO searched VALUES (NULL, ?, ?)"
_MOVE = "UPDATE searched SET sort = ? WHERE number = ?"
_REMOVE = "DELETE FROM searched WHERE number = ?"
_GET = "SELECT numbers FROM bitmap WHERE kind = ? AND name = ? AND part = ? AND block = ?"
_PUT = "INSERT OR REPLACE INTO bitmap VALUES (?, ?, ?, ?, ?)"
_DROP = "DELETE FROM bitmap WHERE kind = ? AND name = ? AND part = ? AND block = ?"
_READ = "SELECT {term}, block, numbers FROM bitmap WHERE kind = ? AND name = ? AND part = ?"
_FIND = """
SELECT searched.sort, entity.id, entity.data FROM json_each(?) AS met
CROSS JOIN searched ON searched.number = met.value CROSS JOIN entity ON entity.row = searched.row
WHERE (entity.expires IS NULL OR entity.expires > ?){tests} ORDER BY searched.sort DESC LIMIT ?
"""


class Bitmap:
    """The aggregate function `bitmap(number)` of SQLite, by which the upgrade makes bitmaps of existing entries."""

    def __init__(self) -> None:
        self._bits = bytearray(_BYTES)

    def step(self, number: int, /) -> None:
        """Add a number."""
        self._bits[number >> 3] |= 1 << (number & 7)

    def finalize(self) -> bytes:
        """Return the block as it is stored."""
        return _pack(bytes(self._bits))


def searched_keys(stored: Stored | None) -> Sequence[IndexKey]:
    """Return all index entries of an entity that has one in `WORDS`, and none of another."""
    return decode_keys(stored.keys) if stored and SEARCHED in stored.keys else ()


def update(
    execute: Callable[[str, tuple[Any, ...]], Any],
    kind: str,
    row: int,
    before: Sequence[IndexKey],
    after: Sequence[IndexKey],
) -> None:
    """Change the bitmaps of an entity, of which `before` and `after` are the results of `searched_keys`."""
    sort = next((key.sort for key in after if key.name == WORDS), None)
    if before:
        (number,) = execute(_NUMBER, (row,)).fetchone()
        execute(*((_REMOVE, (number,)) if sort is None else (_MOVE, (sort, number))))
    else:
        number = execute(_ADD, (row, sort)).lastrowid
    block, bit = divmod(number, _BLOCK)
    old, new = ({(kind, name, part, block) for name, part, _ in keys} for keys in (before, after))
    for key in old ^ new:
        found = execute(_GET, key).fetchone()
        numbers = _toggled(found[0] if found else b"", bit, adds=key in new)
        execute(*((_PUT, (*key, numbers)) if numbers else (_DROP, key)))


def read_statement(terms: Sequence[int]) -> str:
    """Return the statement that selects the bitmaps of terms, which have so many listings.

    Its parameters, for each listing, are kind, index and partition.
    """
    return " UNION ALL ".join(_READ.format(term=term) for term, listings in enumerate(terms) for _ in range(listings))


def few_numbers(query: Query, rows: Iterable[tuple[int, int, bytes]]) -> list[int] | None:
    """Return the numbers of the entities that meet all terms, or None if these are more than `FEW`."""
    terms: list[dict[int, int]] = [{} for _ in query.terms]
    for term, block, numbers in rows:
        terms[term][block] = terms[term].get(block, 0) | int.from_bytes(_dense(numbers), "little")
    found: list[int] = []
    for block in terms[0]:
        bits = reduce(and_, (term.get(block, 0) for term in terms))
        if len(found) + bits.bit_count() > FEW:
            return None
        found += [_BLOCK * block + bit for bit in _bits(bits)]
    return found


def find_statement(*, below: bool, containing: int) -> str:
    """Return the statement that selects sort key, id and data of entities, greatest sort key first.

    Its parameters are the array of their numbers, the current time, `below`, what data must contain, and the limit.
    """
    return _FIND.format(tests=(" AND searched.sort < ?" if below else "") + " AND instr(entity.data, ?)" * containing)


def _toggled(stored: bytes, number: int, *, adds: bool) -> bytes:
    if adds and len(stored) < 2 * _SPARSE:
        return stored + struct.pack("<H", number)
    bits = bytearray(_dense(stored))
    bits[number >> 3] ^= 1 << (number & 7)
    return _pack(bytes(bits))


def _pack(dense: bytes) -> bytes:
    bits = int.from_bytes(dense, "little")
    count = bits.bit_count()
    return dense if count > _SPARSE else struct.pack(f"<{count}H", *_bits(bits))


def _dense(stored: bytes) -> bytes:
    if len(stored) == _BYTES:
        return stored
    bits = bytearray(_BYTES)
    for number in struct.unpack(f"<{len(stored) // 2}H", stored):
        bits[number >> 3] |= 1 << (number & 7)
    return bytes(bits)


def _bits(bits: int) -> list[int]:
    found: list[int] = []
    while bits:
        found.append(bits.bit_length() - 1)
        bits ^= 1 << found[-1]
    return found
