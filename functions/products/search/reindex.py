"""Rebuilding of the search index after a release that changed the folding rules.

Each sweep continues where the previous sweep stopped, even if that was interrupted. The rebuild is complete after a
pass that found no outdated text. Searches work meanwhile: a text that is not yet folded again is found by its old
words.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from functions.products.domain import Product, ProductText, SearchIndex
from functions.products.search.folding import VERSION
from functions.products.search.listing import read_below
from functions.products.store import LISTED, listing
from functions.runtime.store.port import Changes, Ref, Store
from functions.runtime.sweeps import gather_logged

log = logging.getLogger("shop.products")


async def reindex(store: Store, batch: int = 100, batches: int = 50) -> int:
    """Fold texts again if they were folded by outdated rules, and return their number.

    Reads at most `batches` batches of `batch` texts. Concurrent calls are safe.
    """
    rebuilt = 0
    for _ in range(batches):
        index = await store.get(SearchIndex, SearchIndex.id) or SearchIndex()
        if index.folding == VERSION:
            break
        texts, more = await read_below(store, ProductText, LISTED, listing("", True), index.position or None, batch)
        stale = [text.id for text in texts if text.folding != VERSION]
        await gather_logged([_fold_again(store, product_id) for product_id in stale], log)
        rebuilt += len(stale)
        index.stale += len(stale)
        await _save_progress(store, _next(index, texts, more))
    if rebuilt:
        log.info("search_index_rebuilt", extra={"count": rebuilt})
    return rebuilt


def _next(index: SearchIndex, texts: Sequence[ProductText], more: bool) -> SearchIndex:
    """Return the progress after a batch: further into the pass, at the start of another pass, or complete."""
    if more and texts:
        return replace(index, position=texts[-1].listed)
    # The next pass finds texts that failed, and texts that a process of the earlier release wrote meanwhile.
    return replace(index, position="", stale=0, folding=index.folding if index.stale else VERSION)


async def _save_progress(store: Store, progress: SearchIndex) -> None:
    """Store the progress, unless another sweep has made progress since it was read."""

    def change(found: SearchIndex | None) -> tuple[SearchIndex, Sequence[Any]]:
        current = found or SearchIndex()
        return (replace(progress) if current.version == progress.version else current), ()

    await store.update(SearchIndex, progress.id, change)


async def _fold_again(store: Store, product_id: str) -> None:
    def change(found: Sequence[Any]) -> Changes[None]:
        product, text = found
        if product is None or text is None or text.folding == VERSION:
            return Changes(None)
        return Changes(None, [ProductText.of(product, text.version)])

    await store.transact([Ref(Product, product_id), Ref(ProductText, product_id)], change)
