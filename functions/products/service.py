"""The use cases of the catalogue. A product, its SKU claim, search text and category count commit together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from functions.products.domain import Category, CreateProduct, Product, ProductText, SkuClaim, UpdateProduct
from functions.products.search.listing import ListProducts, ProductListing
from functions.products.search.reindex import reindex
from functions.products.stock.domain import Stock
from functions.products.store import ReferencesChanged, categories, with_references
from functions.runtime.clock import Clock
from functions.runtime.currencies import ProviderLimits
from functions.runtime.errors import ServiceError, already_exists, invalid, not_found
from functions.runtime.identity import Identity, require_admin
from functions.runtime.ids import new_id
from functions.runtime.store.port import Changes, Entity, Page, Ref, Store
from observability.failpoints import failpoints

log = logging.getLogger("shop.products")

MAX_BATCH = 100


class ProductsService:
    """Use cases of the catalogue. Collaborators are fixed at start; methods are safe to call concurrently.

    `provider_limits` are the prices that the payment provider can charge. Every method that takes a product's id raises
    NotFound (PRODUCT_NOT_FOUND) if the product is unknown or the caller may not see it. Only administrators and
    services may see an inactive product.
    """

    def __init__(self, store: Store, listing: ProductListing, clock: Clock, *, provider_limits: ProviderLimits) -> None:
        self._store = store
        self._listing = listing
        self._clock = clock
        self._provider_limits = provider_limits

    async def create(self, command: CreateProduct, caller: Identity) -> Product:
        """Add a product without stock, and return it. Administrators only.

        Raises:
            InvalidArgument: PRICE_NOT_CHARGEABLE, or invalid fields.
            AlreadyExists: SKU_TAKEN.
        """
        require_admin(caller)
        product = Product.create(new_id("prd"), command, self._clock.now())
        self._require_chargeable(product)

        def change(found: Sequence[Any]) -> Changes[Product]:
            claim, category, *_ = found
            if claim is not None:
                raise already_exists("SKU_TAKEN", "Another product has this SKU.")
            created = replace(product)
            put: list[Entity] = [created, SkuClaim(product.sku, product.id), ProductText.of(product)]
            put.append(Stock(product.id, product.sku, product.active))
            if product.active:
                put.append(_counted(category, product.category, 1))
            return Changes(created, put)

        refs = [Ref(SkuClaim, product.sku), Ref(Category, product.category)]
        refs += [Ref(cls, product.id) for cls in (Product, ProductText, Stock)]
        with failpoints("products.create"):
            created = await self._store.transact(refs, change)
        log.info("product_created", extra={"product_id": created.id})
        return created

    async def get(self, product_id: str, caller: Identity) -> Product:
        """Return a product."""
        product = await self._store.get(Product, product_id)
        if product is None or not _may_see(caller, product):
            raise _not_found()
        return product

    async def get_many(self, product_ids: Sequence[str], caller: Identity) -> list[Product]:
        """Return the products with these 1 to 100 ids, except unknown ones and those that the caller may not see."""
        if not 1 <= len(product_ids) <= MAX_BATCH:
            raise invalid("Too few or too many products.", ("product_ids", f"must be 1 to {MAX_BATCH}"))
        found = await self._store.get_many(Product, list(dict.fromkeys(product_ids)))
        return [product for product in found.values() if _may_see(caller, product)]

    async def list_products(self, query: ListProducts, caller: Identity) -> Page[Product]:
        """Return a page of products, newest first. A long search may return a short page with a cursor.

        Raises:
            InvalidArgument: the query is invalid, or INVALID_CURSOR.
            PermissionDenied: the caller requests inactive products and is not an administrator.
        """
        if query.include_inactive:
            require_admin(caller)
        return await self._listing.page(query)

    async def list_categories(self) -> list[Category]:
        """Return the categories that have active products, sorted by name."""
        return await categories(self._store)

    async def update(self, command: UpdateProduct, caller: Identity) -> Product:
        """Change the given fields. A command that changes nothing keeps the version. Administrators only.

        Raises:
            InvalidArgument: PRICE_NOT_CHARGEABLE, or invalid fields.
            Aborted: VERSION_MISMATCH.
            FailedPrecondition: PRODUCT_DELETED.
        """
        require_admin(caller)

        def edit(product: Product) -> None:
            product.update(command, self._clock.now())
            if command.price is not None:
                self._require_chargeable(product)

        updated = await self._change(command.product_id, edit, command.category)
        log.info("product_updated", extra={"product_id": updated.id})
        return updated

    async def delete(self, product_id: str, caller: Identity) -> None:
        """Delete a product permanently and free its SKU. A repeated call changes nothing. Administrators only."""
        require_admin(caller)
        await self._change(product_id, lambda product: product.delete(self._clock.now()))
        log.info("product_deleted", extra={"product_id": product_id})

    async def sweep(self) -> None:
        """Rebuild a part of the search index if its texts were folded by the rules of an earlier release."""
        await reindex(self._store)

    def _require_chargeable(self, product: Product) -> None:
        if (problem := self._provider_limits.price_problem(product.price)) is not None:
            part, message = problem
            raise invalid(
                f"{self._provider_limits.provider} cannot charge this price.",
                (f"price.{part}", message),
                reason="PRICE_NOT_CHARGEABLE",
            )

    async def _change(
        self, product_id: str, edit: Callable[[Product], None], to_category: str | None = None
    ) -> Product:
        """Edit a product and everything derived from it in one transaction."""
        seen = await self._store.get(Product, product_id)
        if seen is None:
            raise _not_found()
        own = [Ref(cls, product_id) for cls in (Product, ProductText, Stock)] + [Ref(SkuClaim, seen.sku)]

        async def attempt(slugs: list[str]) -> Product:
            refs = [*own, *(Ref(Category, slug) for slug in slugs)]
            return await self._store.transact(refs, _edited(edit, slugs))

        return await with_references({seen.category, to_category or seen.category}, attempt)


def _edited(edit: Callable[[Product], None], slugs: Sequence[str]) -> Callable[[Sequence[Any]], Changes[Product]]:
    def change(found: Sequence[Any]) -> Changes[Product]:
        product, text, stock, claim, *counts = found
        if product.category not in slugs:
            raise ReferencesChanged([product.category])
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
    """Return the category counts to put and to delete."""
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


def _may_see(caller: Identity, product: Product) -> bool:
    return product.active or caller.is_admin or caller.is_service


def _not_found() -> ServiceError:
    return not_found("Product", "PRODUCT_NOT_FOUND")
