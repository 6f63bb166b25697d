"""Storage of the catalogue and its stock: entity mappings, indexes and listings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from functions.products.domain import Category, Product, ProductText, SearchIndex, SkuClaim
from functions.products.search.keys import keys
from functions.products.stock.domain import Reservation, State, Stock, StockAdjustment
from functions.runtime.clock import sortable
from functions.runtime.errors import Code, ServiceError
from functions.runtime.store.port import WORDS, EntityMapping, IndexKey, Page, Store

RETENTION = timedelta(days=90)
MAX_CATEGORIES = 1000
_ATTEMPTS = 10

LISTED = "listed"
R = TypeVar("R")


def listing(category: str, include_inactive: bool) -> str:
    """Return the partition of index `LISTED` that holds the products and search texts of a category.

    An empty category means all categories.
    """
    return f"{'all' if include_inactive else 'active'}/{category}"


def _product_keys(product: Product) -> Iterable[IndexKey]:
    return () if product.deleted else _listed(product.category, product.active, product.listed)


def _listed(category: str, active: bool, sort: str) -> Iterable[IndexKey]:
    for include_inactive in (True, False) if active else (True,):
        yield IndexKey(LISTED, listing("", include_inactive), sort)
        yield IndexKey(LISTED, listing(category, include_inactive), sort)


def _text_keys(text: ProductText) -> Iterable[IndexKey]:
    # Texts of inactive products are in the same partitions: they are few, and a search reads each text anyway.
    yield IndexKey(LISTED, listing("", True), text.listed)
    yield IndexKey(LISTED, listing(text.category, True), text.listed)
    for key in keys(text.text):
        yield IndexKey(WORDS, key, text.listed)


def _category_keys(category: Category) -> Iterable[IndexKey]:
    yield IndexKey("named", "all", category.id)


def _adjustment_keys(adjustment: StockAdjustment) -> Iterable[IndexKey]:
    yield IndexKey("ledger", adjustment.product_id, f"{sortable(adjustment.at)}/{adjustment.id}")


def _reservation_keys(reservation: Reservation) -> Iterable[IndexKey]:
    if reservation.state is State.RESERVED:
        yield IndexKey("due", "reserved", sortable(reservation.expires_at))


def _reservation_end(reservation: Reservation) -> datetime | None:
    # Committed reservations stay, because an order may be cancelled until it is shipped and no event tells products
    # about shipping. An event that arrives after the retention finds no reservation and makes a new one, which expires
    # as usual.
    if reservation.state in {State.RESERVED, State.COMMITTED}:
        return None
    return reservation.created_at + RETENTION


MAPPINGS = (
    EntityMapping(Product, "product", _product_keys),
    EntityMapping(SkuClaim, "sku"),
    EntityMapping(ProductText, "text", _text_keys),
    EntityMapping(SearchIndex, "search-index"),
    EntityMapping(Category, "category", _category_keys),
    EntityMapping(Stock, "stock"),
    EntityMapping(StockAdjustment, "stock-adjustment", _adjustment_keys),
    EntityMapping(Reservation, "reservation", _reservation_keys, _reservation_end),
)


async def categories(store: Store) -> list[Category]:
    """Return the categories in use, sorted by name, at most `MAX_CATEGORIES`."""
    return (await store.page(Category, "named", "all", limit=MAX_CATEGORIES)).items


async def adjustments(store: Store, product_id: str, limit: int, cursor: str | None) -> Page[StockAdjustment]:
    """Return a page of a product's stock ledger, newest first."""
    return await store.page(StockAdjustment, "ledger", product_id, limit=limit, cursor=cursor, descending=True)


async def expired_reservations(store: Store, now: datetime, limit: int, cursor: str | None) -> Page[Reservation]:
    """Return reservations that have expired, oldest first."""
    return await store.page(Reservation, "due", "reserved", limit=limit, cursor=cursor, until=sortable(now))


class ReferencesChanged(ServiceError):
    """A transaction also needs the entities `ids`, because the state from which it was prepared has changed.

    The error carries the ids, because a transaction may see a state that an ordinary read does not return yet.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__(Code.ABORTED, "CONTENTION", "Too many changes at once: try again.", retry_after=0.5)
        self.ids = ids


async def with_references(ids: Iterable[str], attempt: Callable[[list[str]], Awaitable[R]]) -> R:
    """Call `attempt` with `ids`; while it raises ReferencesChanged, add its ids and retry, up to ten calls in total."""
    known = list(ids)
    for _ in range(_ATTEMPTS - 1):
        try:
            return await attempt(known)
        except ReferencesChanged as changed:
            known = list(dict.fromkeys([*known, *changed.ids]))
    return await attempt(known)
