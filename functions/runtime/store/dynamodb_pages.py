"""Listings on DynamoDB: index entries by a Query, their entities by BatchGetItem."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from functions.runtime.store import dynamodb_layout as layout
from functions.runtime.store.dynamodb_actions import is_over
from functions.runtime.store.dynamodb_table import Table
from functions.runtime.store.planning import Stored
from functions.runtime.store.port import IndexKey

Found = tuple[tuple[str, str], Stored]
"""An entity with its place, (sort, id)."""


class Range(NamedTuple):
    """A part of one listing: what follows `after` (sort, id), with sort keys up to `until`."""

    kind: str
    name: str
    partition: str
    after: tuple[str, str] | None
    until: str | None
    descending: bool


async def listed(table: Table, wanted: Range, limit: int, now: datetime) -> list[Found]:
    """The first `limit` entities of the range.

    Between the reads of an entry and of its entity that may have moved or gone: then it is left out, so that
    everything listed is as the listing says.
    """
    bounds = _bounds(wanted)
    if bounds is None:
        return []
    found: list[Found] = []
    deadline = await table.begin()
    pages = table.partition(
        layout.entry_partition(wanted.kind, wanted.name, wanted.partition),
        deadline,
        ProjectionExpression="sk",
        ScanIndexForward=not wanted.descending,
        Limit=limit,
        **bounds,
    )
    async for entries in pages:
        places = [layout.placed(entry["sk"]["S"]) for entry in entries]
        keys = [layout.entity_key(wanted.kind, entity_id) for _, entity_id in places]
        items = await table.read(keys, deadline) if keys else {}
        for place, key in zip(places, keys, strict=True):
            item = items.get(key["pk"]["S"])
            if item is None or is_over(item, now):
                continue
            stored = layout.stored_of(item)
            if IndexKey(wanted.name, wanted.partition, place[0]) in layout.entries_of(stored):
                found.append((place, stored))
        if len(found) >= limit:
            break
    return found[:limit]


def _bounds(wanted: Range) -> dict[str, Any] | None:
    """The range as a condition of a Query; None when nothing can lie in it."""
    after = layout.place(*wanted.after) if wanted.after else None
    until = layout.last_place(wanted.until) if wanted.until is not None else None
    if wanted.descending:
        ends = [end for end in (after, until) if end is not None]
        return {"condition": " AND sk < :end", "values": {":end": {"S": min(ends)}}} if ends else {}
    if after is None:
        return {"condition": " AND sk < :end", "values": {":end": {"S": until}}} if until else {}
    if until is None:
        return {"condition": " AND sk > :after", "values": {":after": {"S": after}}}
    if after >= until:
        return None
    # A Query takes one condition: just after `after` is after it with the lowest character there is.
    values = {":after": {"S": after + "\x00"}, ":end": {"S": until}}
    return {"condition": " AND sk BETWEEN :after AND :end", "values": values}
