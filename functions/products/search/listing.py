"""Listing and searching products, page by page, newest first.

A page starts below the position of the last product of the previous page. Positions never change, so writes between
two pages cannot repeat a product, or skip a product that existed throughout.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from functions.products.domain import Product, ProductText, category_violations
from functions.products.search.keys import matches, probes, words
from functions.products.store import LISTED, WORDS, listing
from functions.runtime.errors import invalid
from functions.runtime.formats import MAX_QUERY
from functions.runtime.paging import Listing, cursor_after, page_limit, position
from functions.runtime.store.codec import encode
from functions.runtime.store.planning import fitting
from functions.runtime.store.port import Page, Store

MAX_SCANNED = 2000
"""The maximum number of texts that one request reads. Its page may then be short; its cursor continues from there."""

_MAX_BATCH = 200
E = TypeVar("E", Product, ProductText)


@dataclass(frozen=True)
class ListProducts:
    """A page of products of `category` in which each word of `text` is the prefix of a word. Empty values match all."""

    category: str = ""
    text: str = ""
    limit: int = 0
    cursor: str = ""
    include_inactive: bool = False


class ProductListing:
    """Reads pages of products. A request reads at most `max_scanned` texts."""

    def __init__(self, store: Store, max_scanned: int = MAX_SCANNED) -> None:
        self._store = store
        self._max_scanned = max_scanned

    async def page(self, query: ListProducts) -> Page[Product]:
        """Return a page of products. A long search with few matches may return a short or empty page with a cursor.

        Raises:
            InvalidArgument: the query is invalid, or INVALID_CURSOR.
        """
        _check(query)
        query = replace(query, limit=page_limit(query.limit))
        prefixes = words(query.text)
        partition = listing(query.category, query.include_inactive)
        epoch = await self._store.epoch()
        cursors = Listing("product", " ".join(prefixes), partition, descending=True, epoch=epoch)
        below = position(cursors, query.cursor)[0] if query.cursor else None
        if not query.text.strip():
            found, more = await read_below(self._store, Product, LISTED, partition, below, query.limit)
            last = found[-1].listed if more and found else None
        elif prefixes:
            found, last = await self._search(query, prefixes, below)
        else:
            found, last = [], None  # only punctuation: no word begins with it
        return Page(found, cursor_after(cursors, last, "") if last else None)

    async def _search(
        self, query: ListProducts, prefixes: Sequence[str], below: str | None
    ) -> tuple[list[Product], str | None]:
        """Return the products of a page, and the position after which the next page starts."""
        hits, last = await self._matching_texts(query, prefixes, below)
        products = await self._store.get_many(Product, [hit.id for hit in hits]) if hits else {}
        found = [products[hit.id] for hit in hits if hit.id in products]
        # A product may have been deleted or deactivated since its text was read.
        found = [p for p in found if not p.deleted and (p.active or query.include_inactive)]
        fit = fitting((len(encode(product)) for product in found), query.limit)  # texts are shorter than products
        if fit < len(found):
            return found[:fit], found[fit - 1].listed
        return found, last

    async def _matching_texts(
        self, query: ListProducts, prefixes: Sequence[str], below: str | None
    ) -> tuple[list[ProductText], str | None]:
        """Read texts, newest first, until there is one match beyond the limit or `max_scanned` texts were read.

        Returns the matches, and the position after which the next page starts.
        """
        hits: list[ProductText] = []
        scanned = 0
        async for text in self._candidates(query, prefixes, below):
            if _fits(text, query, prefixes):
                if len(hits) == query.limit:
                    return hits, hits[-1].listed
                hits.append(text)
            scanned += 1
            if scanned >= self._max_scanned:
                return hits, text.listed
        return hits, None

    async def _candidates(
        self, query: ListProducts, prefixes: Sequence[str], below: str | None
    ) -> AsyncIterator[ProductText]:
        """Yield every text that may match, newest first, merged from the partitions that may contain matches."""
        partitions = [(WORDS, key) for key in probes(prefixes)] or [(LISTED, listing(query.category, True))]
        streams = [_Stream(self._store, *partition, below, query.limit + 1) for partition in partitions]
        last = None
        while True:
            if empty := [stream for stream in streams if not stream.ahead and stream.more]:
                await asyncio.sleep(0)  # an embedded store may never wait: let other tasks run
                await asyncio.gather(*(stream.read() for stream in empty))
            ready = [stream for stream in streams if stream.ahead]
            if not ready:
                return
            text = max(ready, key=lambda stream: stream.ahead[-1].listed).ahead.pop()
            if text.listed != last:  # a text may be in two partitions
                yield text
            last = text.listed


def _check(query: ListProducts) -> None:
    violations = list(category_violations(query.category)) if query.category else []
    if len(query.text) > MAX_QUERY:
        violations.append(("q", f"must have at most {MAX_QUERY} characters"))
    if violations:
        raise invalid("The query is not valid.", *violations)


def _fits(text: ProductText, query: ListProducts, prefixes: Sequence[str]) -> bool:
    return (
        (text.active or query.include_inactive)
        and query.category in {"", text.category}
        and matches(text.text, prefixes)
    )


class _Stream:
    """One partition of texts, read in growing batches. `ahead` holds the texts read but not yet used, next last."""

    def __init__(self, store: Store, index: str, partition: str, below: str | None, size: int) -> None:
        self._store = store
        self._partition = (index, partition)
        self._below = below
        self._size = size
        self.ahead: list[ProductText] = []
        self.more = True

    async def read(self) -> None:
        """Read the next batch, and set `more` to whether another batch may follow."""
        batch, self.more = await read_below(self._store, ProductText, *self._partition, self._below, self._size)
        if batch:
            self._below = batch[-1].listed
        self._size = min(2 * self._size, _MAX_BATCH)
        self.ahead = batch[::-1]


async def read_below(
    store: Store, cls: type[E], index: str, partition: str, below: str | None, size: int
) -> tuple[list[E], bool]:
    """Return up to `size` entities below a position, newest first, and whether there are more."""
    # The store's bound is inclusive: read one more entity, and drop the entity at the bound.
    page = await store.page(cls, index, partition, limit=size + 1, descending=True, until=below)
    found = [entity for entity in page.items if entity.listed != below]
    return found[:size], page.next_cursor is not None or len(found) > size
