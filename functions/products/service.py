"""The use cases of the catalogue. Product, SKU claim, text and category counts commit together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from functions.products.domain import Category, Product, ProductText, SkuClaim
from functions.products.stock import Stock
from functions.products.store import categories
from functions.products.validation import Draft, Edit, require_chargeable
from functions.runtime.clock import Clock
from functions.runtime.currencies import SIMULATED, ProviderLimits
from functions.runtime.errors import Code, ServiceError, already_exists, invalid, not_found
from functions.runtime.identity import Identity, require_admin
from functions.runtime.ids import new_id
from functions.runtime.store.port import Changes, Entity, Ref, Store
from observability.failpoints import failpoint

log = logging.getLogger("shop.products")

MAX_BATCH = 100
ATTEMPTS = 10


class Moved(ServiceError):
    """A transaction turned out to need `needs`, too: what it was prepared from has changed. Do it again.

    Reading again instead would not do: a store may show a transaction what no reader sees yet.
    """

    def __init__(self, needs: Sequence[str]) -> None:
        super().__init__(Code.ABORTED, "CONTENTION", "Too many changes at once: try again.", retry_after=0.5)
        self.needs = list(needs)


async def create_product(
    store: Store, clock: Clock, caller: Identity, draft: Draft, limits: ProviderLimits = SIMULATED
) -> Product:
    """Add a product, with nothing in stock, at a price within the payment provider's `limits`.

    Raises INVALID_ARGUMENT (also PRICE_NOT_CHARGEABLE), ALREADY_EXISTS (SKU_TAKEN).
    """
    require_admin(caller)
    product = Product.create(new_id("prd"), draft, clock.now())
    require_chargeable(product.price, limits)

    def change(found: Sequence[Any]) -> Changes[Product]:
        claim, category = found
        if claim is not None:
            raise already_exists("SKU_TAKEN", "Another product has this SKU.")
        created = replace(product)
        put: list[Entity] = [created, SkuClaim(product.sku, product.id), ProductText.of(product)]
        put.append(Stock(product.id, product.sku, product.active))
        if product.active:
            put.append(_counted(category, product.category, 1))
        return Changes(created, put)

    refs = [Ref(SkuClaim, product.sku), Ref(Category, product.category)]
    own = [Ref(cls, product.id) for cls in (Product, ProductText, Stock)]
    failpoint("products.create.before")
    created = await store.transact([*refs, *own], lambda found: change(found[:2]))
    failpoint("products.create.after")
    log.info("product_created", extra={"product_id": created.id})
    return created


async def get_product(store: Store, caller: Identity, product_id: str) -> Product:
    """A product; an inactive one only for admins and services. Raises NOT_FOUND."""
    product = await store.get(Product, product_id)
    if product is None or not (product.active or _sees_all(caller)):
        raise _unknown()
    return product


async def get_products(store: Store, caller: Identity, ids: Sequence[str]) -> list[Product]:
    """Those of 1 to 100 ids that exist, inactive ones only for admins and services."""
    if not 1 <= len(ids) <= MAX_BATCH:
        raise invalid("Too few or too many products.", ("product_ids", f"must be 1 to {MAX_BATCH}"))
    found = await store.get_many(Product, list(dict.fromkeys(ids)))
    return [product for product in found.values() if product.active or _sees_all(caller)]


async def update_product(
    store: Store,
    clock: Clock,
    caller: Identity,
    product_id: str,
    edit: Edit,
    version: int | None = None,
    *,
    limits: ProviderLimits = SIMULATED,
) -> Product:
    """Change what is present; an edit that changes nothing keeps the version. A new price is within `limits`.

    Raises INVALID_ARGUMENT (also PRICE_NOT_CHARGEABLE), NOT_FOUND, ABORTED (VERSION_MISMATCH), FAILED_PRECONDITION
    (PRODUCT_DELETED).
    """
    require_admin(caller)

    def change(product: Product) -> None:
        product.edit(edit, version, clock.now())
        if edit.price is not None:
            require_chargeable(edit.price, limits)

    updated = await _change(store, product_id, change, edit.category)
    log.info("product_updated", extra={"product_id": product_id})
    return updated


async def delete_product(store: Store, clock: Clock, caller: Identity, product_id: str) -> None:
    """Take a product out of the catalogue for good and free its SKU; again is no error. Raises NOT_FOUND."""
    require_admin(caller)
    await _change(store, product_id, lambda product: product.delete(clock.now()))
    log.info("product_deleted", extra={"product_id": product_id})


async def list_categories(store: Store) -> list[Category]:
    """The categories with active products, by name."""
    return await categories(store)


async def _change(
    store: Store, product_id: str, edit: Callable[[Product], None], to_category: str | None = None
) -> Product:
    """Edit a product and all that follows from it in one transaction."""
    seen = await store.get(Product, product_id)
    if seen is None:
        raise _unknown()
    slugs = {seen.category, to_category or seen.category}
    own = [*(Ref(cls, product_id) for cls in (Product, ProductText, Stock)), Ref(SkuClaim, seen.sku)]
    for attempt in range(ATTEMPTS):
        among = sorted(slugs)
        try:
            refs = [*own, *(Ref(Category, slug) for slug in among)]
            return await store.transact(refs, _edited(edit, among))
        except Moved as moved:
            if attempt + 1 == ATTEMPTS:
                raise
            slugs.update(moved.needs)
    raise AssertionError("unreachable")


def _edited(
    edit: Callable[[Product], None], slugs: Sequence[str]
) -> Callable[[Sequence[Any]], Changes[Product]]:
    def change(found: Sequence[Any]) -> Changes[Product]:
        product, text, stock, claim, *counts = found
        if product.category not in slugs:
            raise Moved([product.category])
        before = replace(product)
        edit(product)
        if product == before:
            return Changes(product)
        put, delete = _recounted(before, product, dict(zip(slugs, counts, strict=True)))
        put.append(product)
        if product.active != before.active:
            put.append(replace(stock, for_sale=product.active))
        if product.deleted:
            delete += [text, claim]
        elif (words := ProductText.of(product, text.version)) != text:
            put.append(words)
        return Changes(product, put, delete)

    return change


def _recounted(
    before: Product, after: Product, counts: dict[str, Category | None]
) -> tuple[list[Entity], list[Entity]]:
    """The category counts to put and to delete."""
    if before.counted_in == after.counted_in:
        return [], []
    changed = []
    if before.counted_in:
        changed.append(_counted(counts[before.counted_in], before.counted_in, -1))
    if after.counted_in:
        changed.append(_counted(counts[after.counted_in], after.counted_in, 1))
    return [c for c in changed if c.products > 0], [c for c in changed if c.products <= 0]


def _counted(category: Category | None, slug: str, by: int) -> Category:
    return replace(category, products=category.products + by) if category else Category(slug, max(by, 0))


def _sees_all(caller: Identity) -> bool:
    return caller.is_admin or caller.is_service


def _unknown() -> ServiceError:
    return not_found("Product", "PRODUCT_NOT_FOUND")
