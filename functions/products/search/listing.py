"""Listing and searching products, page by page, newest first.

A page starts below the position of the last product of the previous page. Positions never change, so writes between
two pages cannot repeat a product, or skip a product that existed throughout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from functions.products.domain import Product, ProductText, SearchIndex, category_violations
from functions.products.search.folding import VERSION
from functions.products.search.keys import matches, part_of_text, terms, words
from functions.products.store import LISTED, listing
from functions.runtime.errors import invalid
from functions.runtime.formats import MAX_QUERY
from functions.runtime.paging import Listing, cursor_after, page_limit, position
from functions.runtime.store.codec import encode
from functions.runtime.store.planning import fitting
from functions.runtime.store.port import WORDS, Page, Store, Term

MAX_READS = 20
"""The maximum number of reads that one request makes. Its page may then be short; its cursor continues from there."""

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
    """Reads pages of products. A search makes at most `max_reads` reads of texts."""

    def __init__(self, store: Store, max_reads: int = MAX_READS) -> None:
        self._store = store
        self._max_reads = max_reads
        self._rebuilt = False

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
        """Read texts, newest first, until there is one match beyond the limit or `max_reads` reads were made.

        Returns the matches, and the position after which the next page starts.
        """
        hits: list[ProductText] = []
        conditions = [Term(WORDS, keys) for keys in terms(prefixes, earlier=await self._has_earlier())]
        if query.category or not conditions:
            conditions.append(Term(LISTED, [listing(query.category, True)]))
        size, parts = query.limit + 1, [part_of_text(prefix) for prefix in prefixes]
        for _ in range(self._max_reads):
            found = await self._store.search(ProductText, conditions, limit=size, below=below, containing=parts)
            for text in found.items:
                if _fits(text, query, prefixes):
                    if len(hits) == query.limit:
                        return hits, hits[-1].listed
                    hits.append(text)
            below = found.below
            if below is None:
                break
            await asyncio.sleep(0)  # an embedded store may never wait: let other tasks run
            size = min(2 * size, _MAX_BATCH)
        return hits, below

    async def _has_earlier(self) -> bool:
        """Return whether there may be texts that the sweep has not folded again since the rules changed."""
        if not self._rebuilt:
            index = await self._store.get(SearchIndex, SearchIndex.id)
            self._rebuilt = index is not None and index.folding == VERSION
        return not self._rebuilt


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


async def read_below(
    store: Store, cls: type[E], index: str, partition: str, below: str | None, size: int
) -> tuple[list[E], bool]:
    """Return up to `size` entities below a position, newest first, and whether there are more."""
    # The store's bound is inclusive: read one more entity, and drop the entity at the bound.
    page = await store.page(cls, index, partition, limit=size + 1, descending=True, until=below)
    found = [entity for entity in page.items if entity.listed != below]
    return found[:size], page.next_cursor is not None or len(found) > size
