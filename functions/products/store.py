"""Keys and indexes of the catalogue and its stock."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from functions.products.domain import Category, Product, ProductText, SearchIndex, SkuClaim
from functions.products.stock import Reservation, State, Stock, StockAdjustment
from functions.products.text import keys
from functions.runtime.store.port import EntityMapping, IndexKey, Page, Store

RETENTION = timedelta(days=90)
MAX_CATEGORIES = 1000

LISTED = "listed"
WORDS = "words"


def listing(category: str, include_inactive: bool) -> str:
    """The partition of `LISTED` with the products (or texts) of a category; of all where it is empty."""
    return f"{'all' if include_inactive else 'active'}/{category}"


def _product_keys(product: Product) -> Iterable[IndexKey]:
    return () if product.deleted else _listed(product.category, product.active, product.listed)


def _listed(category: str, active: bool, sort: str) -> Iterable[IndexKey]:
    for inactive_too in (True, False) if active else (True,):
        yield IndexKey(LISTED, listing("", inactive_too), sort)
        yield IndexKey(LISTED, listing(category, inactive_too), sort)


def _text_keys(text: ProductText) -> Iterable[IndexKey]:
    # Inactive ones lie among the others: they are few, and a search looks at each text anyway.
    yield IndexKey(LISTED, listing("", True), text.listed)
    yield IndexKey(LISTED, listing(text.category, True), text.listed)
    for key in keys(text.text):
        yield IndexKey(WORDS, key, text.listed)


def _category_keys(category: Category) -> Iterable[IndexKey]:
    yield IndexKey("named", "all", category.id)


def _adjustment_keys(entry: StockAdjustment) -> Iterable[IndexKey]:
    yield IndexKey("ledger", entry.product_id, f"{entry.at.isoformat(timespec='microseconds')}/{entry.id}")


def _reservation_keys(reservation: Reservation) -> Iterable[IndexKey]:
    if reservation.state is State.RESERVED:
        yield IndexKey("due", "reserved", _due(reservation.expires_at))


def _reservation_end(reservation: Reservation) -> datetime | None:
    # A sold one may be cancelled as long as it is not shipped, which nobody tells us of: it stays. An event
    # that comes after the retention finds nothing and holds anew, and that expires like any other.
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
    """Those in use, by name; at most `MAX_CATEGORIES`."""
    return (await store.page(Category, "named", "all", limit=MAX_CATEGORIES)).items


async def ledger(store: Store, product_id: str, limit: int, cursor: str | None) -> Page[StockAdjustment]:
    """What was changed by hand, newest first."""
    return await store.page(
        StockAdjustment, "ledger", product_id, limit=limit, cursor=cursor, descending=True
    )


async def due(store: Store, now: datetime, limit: int, cursor: str | None = None) -> Page[Reservation]:
    """Reservations whose time is over, longest first."""
    return await store.page(Reservation, "due", "reserved", limit=limit, cursor=cursor, until=_due(now))


def _due(at: datetime) -> str:
    return at.isoformat(timespec="microseconds")
