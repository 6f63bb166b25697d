"""The products service over a store, with a manual clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from events.catalog import Line, Money, OrderCancelled, OrderConfirmed, OrderPlaced, Payload, SweepDue
from functions.products.domain import CreateProduct, Product
from functions.products.search.listing import ListProducts, ProductListing
from functions.products.service import ProductsService
from functions.products.stock.domain import Reservation, Stock
from functions.products.stock.service import SetStock, StockService
from functions.products.subscriptions import subscriptions
from functions.runtime.clock import Clock, ManualClock
from functions.runtime.currencies import SIMULATED, ProviderLimits
from functions.runtime.identity import ANONYMOUS, Identity
from functions.runtime.ids import new_id, uuid7
from functions.runtime.inbox import inbox_record
from functions.runtime.store.port import Store
from functions.runtime.tests.support import recorded

ADMIN = Identity(new_id("usr"), frozenset({"customer", "admin"}))
CUSTOMER = Identity(new_id("usr"), frozenset({"customer"}))
ORDERS = Identity("orders", frozenset({"service"}))
EURO = Money(1990, "EUR")
RESERVATION_TIME = timedelta(minutes=20)


def create_product(**fields: Any) -> CreateProduct:
    """Make a command that is valid but for `fields`."""
    valid: dict[str, Any] = {"sku": uuid7(), "name": "Kettle", "category": "kitchen", "price": EURO}
    return CreateProduct(**valid | fields)


def products_service(store: Store, clock: Clock, provider_limits: ProviderLimits = SIMULATED) -> ProductsService:
    """Compose the catalogue's service as its bootstrap does."""
    return ProductsService(store, ProductListing(store), clock, provider_limits=provider_limits)


def stock_service(store: Store, clock: Clock, reservation_time: timedelta = RESERVATION_TIME) -> StockService:
    """Compose the stock's service as its bootstrap does."""
    return StockService(store, products_service(store, clock), clock, reservation_time=reservation_time)


class Shop:
    """The services of products and stock."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self.products = products_service(store, clock)
        self.stock = stock_service(store, clock)
        self.handlers = subscriptions(self.products, self.stock)

    async def add(self, on_hand: int = 0, **fields: Any) -> Product:
        """Add a product, a second younger than the last, with stock."""
        self.clock.advance(timedelta(seconds=1))
        product = await self.products.create(create_product(**fields), ADMIN)
        if on_hand:
            await self.stock.set(SetStock(product.id, on_hand), ADMIN)
        return product

    async def names(self, text: str = "", **fields: Any) -> list[str]:
        """Return the names on the first page of a search."""
        page = await self.products.list_products(ListProducts(text=text, **fields), ANONYMOUS)
        return [product.name for product in page.items]

    async def walk(self, caller: Identity = ANONYMOUS, **fields: Any) -> list[list[Product]]:
        """Return all pages."""
        pages, cursor = [], ""
        while True:
            page = await self.products.list_products(ListProducts(cursor=cursor, **fields), caller)
            pages.append(page.items)
            if page.next_cursor is None:
                return pages
            cursor = page.next_cursor

    async def stock_of(self, product_id: str) -> Stock:
        """Return the stock as committed."""
        return await self.stock.get(product_id, ADMIN)

    async def counts(self, product_id: str) -> tuple[int, int]:
        """Return the pieces on hand and reserved."""
        stock = await self.stock_of(product_id)
        return stock.on_hand, stock.reserved

    async def reservation(self, order_id: str) -> Reservation:
        """Return the reservation as committed."""
        found = await self.store.get(Reservation, order_id)
        assert found is not None
        return found

    async def receive(self, payload: Payload, event_id: str = "") -> None:
        """Deliver an event, a new one without `event_id`."""
        inbox = inbox_record(payload.SOURCE, event_id or uuid7(), self.clock.now())
        await self.handlers[type(payload)](payload, inbox)

    async def sweep(self) -> None:
        """Deliver a tick."""
        await self.receive(SweepDue())

    async def events(self, kind: type[Payload] = Payload) -> list[Any]:
        """Return the recorded events, oldest first."""
        return [event for event in await recorded(self.store) if isinstance(event, kind)]


def placed(*lines: tuple[str, int], order_id: str = "") -> OrderPlaced:
    """Make the event of an order of (product id, quantity)."""
    return OrderPlaced(
        order_id=order_id or new_id("ord"),
        user_id=CUSTOMER.subject,
        lines=[Line(product_id, quantity, EURO) for product_id, quantity in lines],
        total=EURO,
    )


def confirmed(order_id: str) -> OrderConfirmed:
    """Make the event of a paid order."""
    return OrderConfirmed(order_id=order_id, user_id=CUSTOMER.subject, total=EURO)


def cancelled(order_id: str) -> OrderCancelled:
    """Make the event of a cancelled order."""
    return OrderCancelled(order_id=order_id, user_id=CUSTOMER.subject, reason="CANCELLED_BY_CUSTOMER")


def flat(pages: Sequence[Sequence[Product]]) -> list[str]:
    """Return the ids of all pages."""
    return [product.id for page in pages for product in page]
