"""Rebuilding the search index after a release that folds texts by other rules.

The sweep calls `reindex`. It goes on where the last sweep stopped, however that ended, and is over for good after
a pass that found nothing to do. Meanwhile searches go on; what was not folded anew yet is found by its old words.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from functions.products.domain import Product, ProductText, SearchIndex
from functions.products.folding import VERSION
from functions.products.listing import below_place
from functions.products.store import LISTED, listing
from functions.runtime.concurrency import gather_logged
from functions.runtime.store.port import Changes, Ref, Store

log = logging.getLogger("shop.products")


async def reindex(store: Store, batch: int = 100, batches: int = 50) -> int:
    """Fold stored texts anew where their rules are outdated, at most `batches` of `batch`; return how many.

    Several at a time do no harm.
    """
    rebuilt = 0
    for _ in range(batches):
        index = await store.get(SearchIndex, SearchIndex.id) or SearchIndex()
        if index.folding == VERSION:
            break
        texts, more = await below_place(
            store, ProductText, LISTED, listing("", True), index.position or None, batch
        )
        stale = [text.id for text in texts if text.folding != VERSION]
        await gather_logged([_fold_anew(store, product_id) for product_id in stale], log)
        rebuilt += len(stale)
        index.stale += len(stale)
        await _move_on(store, _next(index, texts, more))
    if rebuilt:
        log.info("search_index_rebuilt", extra={"count": rebuilt})
    return rebuilt


def _next(index: SearchIndex, texts: Sequence[ProductText], more: bool) -> SearchIndex:
    """Return the state after a batch: within the pass, at the start of another one, or done."""
    if more and texts:
        return replace(index, position=texts[-1].listed)
    # What failed, or was written by the earlier release in the meantime, is found by the next pass.
    return replace(index, position="", stale=0, folding=index.folding if index.stale else VERSION)


async def _move_on(store: Store, wanted: SearchIndex) -> None:
    """Store the state, unless another sweep has moved on since it was read."""

    def change(found: SearchIndex | None) -> tuple[SearchIndex, Sequence[Any]]:
        current = found or SearchIndex()
        return (replace(wanted) if current.version == wanted.version else current), ()

    await store.update(SearchIndex, wanted.id, change)


async def _fold_anew(store: Store, product_id: str) -> None:
    def change(found: Sequence[Any]) -> Changes[None]:
        product, text = found
        if product is None or text is None or text.folding == VERSION:
            return Changes(None)
        return Changes(None, [ProductText.of(product, text.version)])

    await store.transact([Ref(Product, product_id), Ref(ProductText, product_id)], change)
