"""Browsing and searching: pages of the catalogue, newest first.

A page starts below the place of the last product of the page before, which never changes: writes between two
pages neither repeat nor skip what was there all along.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from functions.products.domain import Product, ProductText
from functions.products.store import LISTED, WORDS, listing
from functions.products.text import matches, probes, words
from functions.products.validation import category_violations
from functions.runtime.errors import invalid
from functions.runtime.formats import MAX_QUERY
from functions.runtime.identity import Identity, require_admin
from functions.runtime.paging import page_limit
from functions.runtime.store.codec import encode
from functions.runtime.store.cursors import Listing, cursor_after, position
from functions.runtime.store.planning import fitting
from functions.runtime.store.port import Page, Store

MAX_LOOKED_AT = 2000
"""Texts that one request looks at; the page is then as full as it is, and its cursor goes on from there."""

_MAX_BATCH = 200
E = TypeVar("E", Product, ProductText)


@dataclass(frozen=True)
class Query:
    """What to list: `category` (empty: all), `text` (words that must all occur, by prefix; empty: all)."""

    category: str = ""
    text: str = ""
    limit: int = 0
    cursor: str = ""
    include_inactive: bool = False


async def list_products(
    store: Store, caller: Identity, query: Query, max_looked_at: int = MAX_LOOKED_AT
) -> Page[Product]:
    """A page of products; in a long and barren search it may be short, or even empty, and have a cursor.

    Raises INVALID_ARGUMENT, and PERMISSION_DENIED when others than admins ask for inactive ones.
    """
    if query.include_inactive:
        require_admin(caller)
    _check(query)
    limit = page_limit(query.limit)
    prefixes = words(query.text)
    epoch = await store.epoch()
    here = Listing(
        "product", " ".join(prefixes), listing(query.category, query.include_inactive), True, epoch
    )
    below = position(here, query.cursor)[0] if query.cursor else None
    if not query.text.strip():
        found, go_on = await _browse(store, query, limit, below)
    elif prefixes:
        hits, go_on = await _search(store, replace(query, limit=limit), prefixes, below, max_looked_at)
        found = await _products(store, query, hits)
        fit = fitting((len(encode(product)) for product in found), limit)  # the hits were texts, and shorter
        if fit < len(found):
            found, go_on = found[:fit], found[fit - 1].listed
    else:
        found, go_on = [], None  # nothing but punctuation, which no word begins with
    return Page(found, cursor_after(here, go_on, "") if go_on else None)


def _check(query: Query) -> None:
    found = list(category_violations(query.category)) if query.category else []
    if len(query.text) > MAX_QUERY:
        found.append(("q", f"must have at most {MAX_QUERY} characters"))
    if found:
        raise invalid("The query is not valid.", *found)


async def _browse(
    store: Store, query: Query, limit: int, below: str | None
) -> tuple[list[Product], str | None]:
    partition = listing(query.category, query.include_inactive)
    found, more = await below_place(store, Product, LISTED, partition, below, limit)
    return found, found[-1].listed if more and found else None


async def _search(
    store: Store, query: Query, prefixes: Sequence[str], below: str | None, max_looked_at: int
) -> tuple[list[ProductText], str | None]:
    """Look through texts, newest first, until there is one hit more than wanted, or enough was looked at."""
    hits: list[ProductText] = []
    looked_at = 0
    async for text in _texts(store, query, prefixes, below):
        if _fits(text, query, prefixes):
            if len(hits) == query.limit:
                return hits, hits[-1].listed
            hits.append(text)
        looked_at += 1
        if looked_at >= max_looked_at:
            return hits, text.listed
    return hits, None


async def _products(store: Store, query: Query, hits: Sequence[ProductText]) -> list[Product]:
    """The products of the hits, without any that was taken out since its text was read."""
    products = await store.get_many(Product, [hit.id for hit in hits]) if hits else {}
    found = [products[hit.id] for hit in hits if hit.id in products]
    return [p for p in found if not p.deleted and (p.active or query.include_inactive)]


def _fits(text: ProductText, query: Query, prefixes: Sequence[str]) -> bool:
    return (
        (text.active or query.include_inactive)
        and query.category in {"", text.category}
        and matches(text.text, prefixes)
    )


async def _texts(
    store: Store, query: Query, prefixes: Sequence[str], below: str | None
) -> AsyncIterator[ProductText]:
    """Every text that may match, newest first: the partitions that may hold some, merged."""
    partitions = [(WORDS, key) for key in probes(prefixes)] or [(LISTED, listing(query.category, True))]
    streams = [_Stream(store, *partition, below, query.limit + 1) for partition in partitions]
    last = None
    while True:
        if short := [stream for stream in streams if not stream.ahead and stream.more]:
            await asyncio.sleep(0)  # an embedded store may never wait: let others have their turn
            await asyncio.gather(*(stream.read() for stream in short))
        ready = [stream for stream in streams if stream.ahead]
        if not ready:
            return
        text = max(ready, key=lambda stream: stream.ahead[-1].listed).ahead.pop()
        if text.listed != last:  # one text may lie in two partitions
            yield text
        last = text.listed


class _Stream:
    """One partition of texts, read in batches that grow: `ahead` is read but not taken yet, the next one last."""

    def __init__(self, store: Store, index: str, partition: str, below: str | None, size: int) -> None:
        self._store = store
        self._partition = (index, partition)
        self._below = below
        self._size = size
        self.ahead: list[ProductText] = []
        self.more = True

    async def read(self) -> None:
        """Read the next batch; `more` tells whether another may follow."""
        batch, self.more = await below_place(
            self._store, ProductText, *self._partition, self._below, self._size
        )
        if batch:
            self._below = batch[-1].listed
        self._size = min(2 * self._size, _MAX_BATCH)
        self.ahead = batch[::-1]


async def below_place(
    store: Store, cls: type[E], index: str, partition: str, below: str | None, size: int
) -> tuple[list[E], bool]:
    """At most `size` entities under the place `below`, which need not be taken any more; and whether there are more."""
    # The store's bound is inclusive: one more is read, and the one at the bound dropped.
    page = await store.page(cls, index, partition, limit=size + 1, descending=True, until=below)
    found = [entity for entity in page.items if entity.listed != below]
    return found[:size], page.next_cursor is not None or len(found) > size
