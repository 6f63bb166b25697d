"""The measured operations: the domains' use cases, on entities drawn at random from the stores."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from events.catalog import Line, Money, OrderPlaced, PaymentCaptured
from functions.orders.domain import Order
from functions.orders.pricing import Offer, RequestedLine
from functions.orders.service import ListOrders, PlaceOrder
from functions.orders.tests.shop import ORDER_TIMEOUT, orders_service
from functions.products.domain import Product
from functions.products.search.listing import ListProducts
from functions.products.stock.service import StockService
from functions.products.tests.shop import RESERVATION_TIME, products_service, stock_service
from functions.runtime.addresses import PostalAddress
from functions.runtime.clock import SystemClock
from functions.runtime.identity import ANONYMOUS, Identity
from functions.runtime.ids import new_id, uuid7
from functions.runtime.inbox import inbox_record
from functions.runtime.paging import Listing, cursor_after
from functions.runtime.store.port import Changes, IdempotencyRecord, Store
from functions.users.bootstrap import compose, make_hasher
from functions.users.domain import EmailClaim
from functions.users.emails import email_key
from functions.users.service import ListUsers
from functions.users.settings import Settings as UsersSettings
from tests.bench.scale.shop import CATEGORIES, COMMON, MEETINGS, PARTNERS, SELDOM, OrderSample, sku

_ADMINISTRATOR = Identity(new_id("usr"), frozenset({"customer", "admin"}))
_HOME = PostalAddress("Ada Lovelace", "12 St James's Square", "London", "SW1Y 4JH", "GB")
_PAGE = 20
_MANY = 20_000  # the first 20,000 calls also map the pages of a large file, which is not to be measured


class _Catalogue:
    """A catalogue that calls no other service: the cost in products is measured separately."""

    async def offers(self, product_ids: Sequence[str]) -> dict[str, Offer]:
        return {wanted: Offer(wanted, "SKU", "Kettle", Money(1990, "EUR"), active=True) for wanted in product_ids}

    async def on_hand(self, product_ids: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(product_ids, 1_000_000)


class _OlderClock:
    """A clock that runs behind, so that orders placed by it are overdue."""

    def now(self) -> Any:
        return SystemClock().now() - 2 * ORDER_TIMEOUT


class Workload:
    """The domains' services over open stores, and samples of their entities; `meter` returns the cost so far."""

    def __init__(self, stores: Mapping[str, Store], sample: Path, meter: Callable[[], float]) -> None:
        self.stores = stores
        self.meter = meter
        self.people = stores["users"]
        settings = UsersSettings()
        self.users = compose(settings, self.people, make_hasher(settings), SystemClock()).users
        self.clock = SystemClock()
        self.orders = orders_service(stores["orders"], self.clock, _Catalogue())
        self.products = products_service(stores["products"], self.clock)
        self.stock = stock_service(stores["products"], self.clock)
        self.expired_stock = stock_service(stores["products"], self.clock, -RESERVATION_TIME)
        self.overdue_orders = orders_service(stores["orders"], _OlderClock(), _Catalogue())
        self.random = Random(7)
        drawn = json.loads(sample.read_text())
        self._orders: list[OrderSample] = [OrderSample(*order) for order in drawn["orders"]]
        self._products: list[str] = drawn["products"]
        self._users: list[str] = drawn["users"]
        self.last: Any = None
        """The result of the `prepare` function of an operation."""

    def order(self) -> OrderSample:
        """Return a random order."""
        return self.random.choice(self._orders)

    def product(self) -> str:
        """Return a random product's id."""
        return self.random.choice(self._products)

    def number(self) -> int:
        """Return a random product's or account's number."""
        return self.random.randrange(min(len(self._products), len(self._users)))

    def customer(self) -> Identity:
        """Return a random customer."""
        return Identity(self.random.choice(self._users), frozenset({"customer"}))

    async def tidy(self) -> None:
        """Remove the events from the outbox, as if they had been published."""
        for store in self.stores.values():
            while rows := await store.outbox(self.clock.now() + timedelta(days=1), 1000):
                await store.outbox_published([row.id for row in rows])

    async def close(self) -> None:
        """Close the stores."""
        for store in self.stores.values():
            await store.close()


Step = Callable[[Workload], Awaitable[Any]]


class Operation(NamedTuple):
    """An operation to measure: `call` is measured; `prepare`, which may set it up, is not."""

    call: Step
    prepare: Step | None = None
    calls: int = 500


async def measure(workload: Workload, operation: Operation, calls: int) -> float:
    """Return the average cost of one call."""
    total = 0.0
    for _ in range(calls):
        if operation.prepare:
            await operation.prepare(workload)
        before = workload.meter()
        await operation.call(workload)
        total += workload.meter() - before
    await workload.tidy()
    return total / calls


async def _get_order(workload: Workload) -> None:
    order = workload.order()
    found = await workload.orders.get(order.id, Identity(order.user_id, frozenset({"customer"})))
    assert found.id == order.id


async def _list_orders(workload: Workload, caller: Identity, cursor: str = "") -> None:
    query = ListOrders(everybody=caller is _ADMINISTRATOR, limit=_PAGE, cursor=cursor)
    await workload.orders.list_orders(query, caller)


async def _list_mine(workload: Workload) -> None:
    await _list_orders(workload, Identity(workload.order().user_id, frozenset({"customer"})))


async def _list_all(workload: Workload) -> None:
    await _list_orders(workload, _ADMINISTRATOR)


async def _list_deep(workload: Workload) -> None:
    order = workload.order()
    listing = Listing("order", "all", "any", descending=True)
    await _list_orders(workload, _ADMINISTRATOR, cursor_after(listing, order.created_at, order.id))


async def _place(workload: Workload) -> None:
    command = PlaceOrder([RequestedLine(workload.product(), 1)], _HOME, "tok_ok", uuid7(), fingerprint="f")
    workload.last = await workload.orders.place(command, workload.customer())


async def _capture(workload: Workload) -> None:
    order: Order = workload.last
    event = PaymentCaptured(order_id=order.id, payment_id="pay", amount=order.total)
    await workload.orders.on_payment_captured(event, inbox_record("/payments", uuid7(), workload.clock.now()))


async def _place_overdue(workload: Workload) -> None:
    command = PlaceOrder([RequestedLine(workload.product(), 1)], _HOME, "tok_ok")
    await workload.overdue_orders.place(command, workload.customer())


async def _sweep_orders(workload: Workload) -> None:
    await workload.orders.sweep()


async def _get_product(workload: Workload) -> None:
    await workload.products.get(workload.product(), ANONYMOUS)


async def _list_category(workload: Workload) -> None:
    await _search(workload, "", category=workload.random.choice(CATEGORIES))


async def _search(workload: Workload, text: str, category: str = "", *, found: bool = True) -> Sequence[Product]:
    page = await workload.products.list_products(ListProducts(category, text, _PAGE), ANONYMOUS)
    assert bool(page.items) == found, text
    return page.items


async def _search_common(workload: Workload) -> None:
    await _search(workload, COMMON)


async def _search_prefix(workload: Workload) -> None:
    await _search(workload, COMMON[:4])


async def _search_two(workload: Workload) -> None:
    number = workload.random.randrange(len(SELDOM))
    await _search(workload, f"{SELDOM[number]} {CATEGORIES[number % len(CATEGORIES)]}")


async def _search_seldom(workload: Workload) -> None:
    pair = workload.random.randrange(len(SELDOM))
    assert len(await _search(workload, f"{SELDOM[pair]} {PARTNERS[pair]}")) == MEETINGS


async def _search_rare(workload: Workload) -> None:
    await _search(workload, sku(workload.number()))


async def _search_nothing(workload: Workload) -> None:
    await _search(workload, "kettlexyz", found=False)


async def _reserve(workload: Workload) -> None:
    await _reserve_by(workload.stock, workload)


async def _reserve_by(stock: StockService, workload: Workload) -> None:
    line = Line(workload.product(), 1, Money(1990, "EUR"))
    order = OrderPlaced(order_id=new_id("ord"), user_id="usr", lines=[line], total=line.unit_price)
    await stock.on_order_placed(order, inbox_record("/orders", uuid7(), workload.clock.now()))


async def _reserve_overdue(workload: Workload) -> None:
    await _reserve_by(workload.expired_stock, workload)


async def _sweep_reservations(workload: Workload) -> None:
    await workload.stock.sweep()


async def _get_user(workload: Workload) -> None:
    who = workload.customer()
    await workload.users.get(who.subject, who)


async def _find_email(workload: Workload) -> None:
    assert await workload.people.get(EmailClaim, email_key(f"person.{workload.number()}@example.com"))


async def _list_users(workload: Workload) -> None:
    await workload.users.list_users(ListUsers(_PAGE), _ADMINISTRATOR)


async def _make_guards(workload: Workload) -> None:
    for _ in range(20):
        record = IdempotencyRecord(uuid7(), timedelta(seconds=-1))
        await workload.stores["orders"].transact([], lambda _: Changes(None), idempotency=record)


async def _expire(workload: Workload) -> None:
    await workload.stores["orders"].expire(workload.clock.now())


async def _sweep_outbox(workload: Workload) -> None:
    await workload.stores["orders"].outbox(workload.clock.now(), 5000)


OPERATIONS: dict[str, Operation] = {
    "get an order": Operation(_get_order, calls=_MANY),
    "list one's own orders": Operation(_list_mine, calls=_MANY // 10),  # ten orders each
    "list everybody's orders": Operation(_list_all),
    "list everybody's orders, from anywhere": Operation(_list_deep),
    "place an order": Operation(_place, calls=100),
    "handle payment.captured": Operation(_capture, prepare=_place, calls=100),
    "sweep: cancel an overdue order": Operation(_sweep_orders, prepare=_place_overdue, calls=50),
    "sweep: outbox": Operation(_sweep_outbox),
    "sweep: forget 20 expired guards": Operation(_expire, prepare=_make_guards, calls=10),
    "get a product": Operation(_get_product, calls=_MANY),
    "list a category": Operation(_list_category, calls=200),
    "search: a common word": Operation(_search_common, calls=200),
    "search: a common prefix": Operation(_search_prefix, calls=200),
    "search: two words that often meet": Operation(_search_two, calls=100),
    "search: two words that seldom meet": Operation(_search_seldom, calls=100),
    "search: one SKU": Operation(_search_rare, calls=50),
    "search: nothing like it": Operation(_search_nothing, calls=50),
    "handle order.placed: reserve": Operation(_reserve, calls=100),
    "sweep: let go of a reservation": Operation(_sweep_reservations, prepare=_reserve_overdue, calls=50),
    "get a user": Operation(_get_user, calls=_MANY),
    "find an e-mail": Operation(_find_email, calls=_MANY),
    "list users": Operation(_list_users),
}
