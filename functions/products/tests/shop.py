"""Short words for what the tests do with products."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from events.catalog import Line, Money, OrderCancelled, OrderConfirmed, OrderPlaced, Payload, SweepDue
from functions.products import service, stock_service
from functions.products.domain import Product
from functions.products.listing import Query, list_products
from functions.products.stock import Reservation, Stock
from functions.products.subscriptions import subscriptions
from functions.products.validation import Draft
from functions.runtime.clock import ManualClock
from functions.runtime.identity import ANONYMOUS, Identity
from functions.runtime.ids import new_id, uuid7
from functions.runtime.inbox import inbox_record
from functions.runtime.store.port import Store
from functions.runtime.store.testing import recorded

ADMIN = Identity(new_id("usr"), frozenset({"customer", "admin"}))
CUSTOMER = Identity(new_id("usr"), frozenset({"customer"}))
ORDERS = Identity("orders", frozenset({"service"}))
EURO = Money(1990, "EUR")
HOLD = timedelta(minutes=20)


def draft(**fields: Any) -> Draft:
    """A valid draft but for `fields`."""
    valid: dict[str, Any] = {"sku": uuid7(), "name": "Kettle", "category": "kitchen", "price": EURO}
    return Draft(**valid | fields)


class Shop:
    """The products service without its doors."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self._handlers = subscriptions(store, clock, HOLD)

    async def add(self, on_hand: int = 0, **fields: Any) -> Product:
        """A product, a second younger than the last, with stock."""
        self.clock.advance(timedelta(seconds=1))
        product = await service.create_product(self.store, self.clock, ADMIN, draft(**fields))
        if on_hand:
            await stock_service.set_stock(self.store, self.clock, ADMIN, product.id, on_hand)
        return product

    async def names(self, text: str = "", **fields: Any) -> list[str]:
        """The names on the first page of a search."""
        page = await list_products(self.store, ANONYMOUS, Query(text=text, **fields))
        return [product.name for product in page.items]

    async def walk(self, caller: Identity = ANONYMOUS, **fields: Any) -> list[list[Product]]:
        """All pages."""
        pages, cursor = [], ""
        while True:
            page = await list_products(self.store, caller, Query(cursor=cursor, **fields))
            pages.append(page.items)
            if page.next_cursor is None:
                return pages
            cursor = page.next_cursor

    async def stock(self, product_id: str) -> Stock:
        """As committed."""
        return await stock_service.get_stock(self.store, ADMIN, product_id)

    async def counts(self, product_id: str) -> tuple[int, int]:
        """On hand and reserved."""
        stock = await self.stock(product_id)
        return stock.on_hand, stock.reserved

    async def reservation(self, order_id: str) -> Reservation:
        """As committed."""
        found = await self.store.get(Reservation, order_id)
        assert found is not None
        return found

    async def deliver(self, payload: Payload, event_id: str = "") -> None:
        """As the event door does; without `event_id` it is a new event."""
        inbox = inbox_record(payload.SOURCE, event_id or uuid7(), self.clock.now())
        await self._handlers[type(payload)](payload, inbox)

    async def sweep(self) -> None:
        """The tick."""
        await self.deliver(SweepDue())

    async def events(self, kind: type[Payload] = Payload) -> list[Any]:
        """What was recorded, oldest first."""
        return [event for event in await recorded(self.store) if isinstance(event, kind)]


def placed(*lines: tuple[str, int], order_id: str = "") -> OrderPlaced:
    """An order of (product id, quantity)."""
    return OrderPlaced(
        order_id=order_id or new_id("ord"),
        user_id=CUSTOMER.subject,
        lines=[Line(product_id, quantity, EURO) for product_id, quantity in lines],
        total=EURO,
    )


def confirmed(order_id: str) -> OrderConfirmed:
    """The order is paid."""
    return OrderConfirmed(order_id=order_id, user_id=CUSTOMER.subject, total=EURO)


def cancelled(order_id: str) -> OrderCancelled:
    """The order has ended."""
    return OrderCancelled(order_id=order_id, user_id=CUSTOMER.subject, reason="CANCELLED_BY_CUSTOMER")


def flat(pages: Sequence[Sequence[Product]]) -> list[str]:
    """The ids of all pages."""
    return [product.id for page in pages for product in page]
