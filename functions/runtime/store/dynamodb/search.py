"""`Store.search` on DynamoDB, which cannot join: the entries of all terms are read in order and compared here.

Entries are read without their entities, some fifty for one read unit. When the next entry of one term is far below that
of another, the other term skips to it without reading the entries between. So the cost follows the rarest term.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import datetime

from functions.runtime.store.base import Found
from functions.runtime.store.dynamodb import layout
from functions.runtime.store.dynamodb.table import Table
from functions.runtime.store.groups import entries_of
from functions.runtime.store.port import IndexKey, Term
from functions.runtime.store.search import Query

_MOST_READS = 40  # rounds of Queries in one call
_BATCH = 50
_LARGEST_BATCH = 400

Place = tuple[str, str]
"""The sort key and id of an entry."""


async def read_matching(table: Table, query: Query, limit: int, now: datetime) -> tuple[list[Found], str | None]:
    """Return up to `limit` entities that meet all terms, and the sort key below which there may be more."""
    deadline = await table.begin()
    terms = [_Term(table, query, term, max(limit, _BATCH), deadline) for term in query.terms]
    places: list[Place] = []
    rest: str | None = None
    reads = 0
    while len(places) < limit:
        if waiting := [listing for term in terms for listing in term.listings if listing.must_read]:
            if reads == _MOST_READS:
                break
            reads += 1
            await asyncio.gather(*(listing.read() for listing in waiting))
            continue
        heads = [term.head() for term in terms]
        if None in heads:
            rest = None
            break
        lowest = min(head for head in heads if head)
        met = all(head == lowest for head in heads)
        if met:
            places.append(lowest)
        for term in terms:
            term.drop(lowest, inclusive=met)
        rest = lowest[0] if met else lowest[0] + "\0"  # an exclusive bound
    return await _entities(table, query, places, now, deadline), rest


async def _entities(table: Table, query: Query, places: Sequence[Place], now: datetime, deadline: float) -> list[Found]:
    """Read the entities at these places, without those that are gone or no longer meet a term."""
    keys = [layout.entity_key(query.kind, entity_id) for _, entity_id in places]
    items = await table.read(keys, deadline) if keys else {}
    found: list[Found] = []
    for place, key in zip(places, keys, strict=True):
        item = items.get(key["pk"]["S"])
        if item is None or layout.is_over(item, now):
            continue
        stored = layout.stored_of(item)
        entries = set(entries_of(stored))
        if not all(text in stored.data for text in query.containing):
            continue
        if all(any(IndexKey(index, part, place[0]) in entries for part in parts) for index, parts in query.terms):
            found.append((*place, stored.data))
    return found


class _Term:
    """The entries of one term, greatest first."""

    def __init__(self, table: Table, query: Query, term: Term, size: int, deadline: float) -> None:
        partitions = [layout.entry_partition(query.kind, term.name, partition) for partition in term.partitions]
        self.listings = [
            _Listing(table, partition, query.below, size, deadline)
            for partition in partitions
            if layout.fits(partition)
        ]

    def head(self) -> Place | None:
        """Return the greatest place that is left, or None."""
        return max((listing.ahead[0] for listing in self.listings if listing.ahead), default=None)

    def drop(self, place: Place, *, inclusive: bool) -> None:
        """Drop the places above this one, and this one if `inclusive`."""
        for listing in self.listings:
            listing.drop(place, inclusive)


class _Listing:
    """One partition, read in growing batches. `ahead` has the places that were read and not dropped."""

    def __init__(self, table: Table, partition: str, below: str | None, size: int, deadline: float) -> None:
        self._table = table
        self._partition = partition
        self._end = None if below is None else layout.place(below, "")  # an exclusive bound
        self._size = size
        self._deadline = deadline
        self._more = True
        self.ahead: deque[Place] = deque()

    @property
    def must_read(self) -> bool:
        """Whether nothing is ahead although there may be more."""
        return self._more and not self.ahead

    async def read(self) -> None:
        """Read the next batch."""
        bound = {":end": {"S": self._end}} if self._end is not None else {}
        items, following = await self._table.query(
            self._deadline,
            KeyConditionExpression="pk = :pk" + (" AND sk < :end" if bound else ""),
            ExpressionAttributeValues={":pk": {"S": self._partition}, **bound},
            ConsistentRead=True,
            ProjectionExpression="sk",
            ScanIndexForward=False,
            Limit=self._size,
        )
        self.ahead.extend(layout.placed(item["sk"]["S"]) for item in items)
        self._more = following is not None
        if items:
            self._end = items[-1]["sk"]["S"]
        self._size = min(2 * self._size, _LARGEST_BATCH)

    def drop(self, place: Place, inclusive: bool) -> None:
        """Drop the places above this one, and this one if `inclusive`. The next batch begins at this place or below."""
        while self.ahead and (self.ahead[0] > place or (inclusive and self.ahead[0] == place)):
            self.ahead.popleft()
        if not self.ahead and self._more and self._end is not None:
            self._end = min(self._end, layout.place(*place) + ("" if inclusive else "\0"))
