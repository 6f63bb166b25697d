"""What is measured: the domains' own use cases, on things drawn at random from all that a shop has."""

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
from functions.runtime.store.cursors import Listing, cursor_after
from functions.runtime.store.port import Changes, IdempotencyRecord, Store
from functions.users.bootstrap import compose, make_hasher
from functions.users.domain import EmailClaim
from functions.users.emails import email_key
from functions.users.service import ListUsers
from functions.users.settings import Settings as UsersSettings
from tests.bench.scale.shop import CATEGORIES, COMMON, OrderSample, sku

_BOSS = Identity(new_id("usr"), frozenset({"customer", "admin"}))
_HOME = PostalAddress("Ada Lovelace", "12 St James's Square", "London", "SW1Y 4JH", "GB")
_PAGE = 20
_MANY = 20_000  # the first 20,000 map the pages of a large file, which is not what is to be measured


class _Catalogue:
    """Prices without a call: another domain's cost is measured there."""

    async def offers(self, product_ids: Sequence[str]) -> dict[str, Offer]:
        return {
            wanted: Offer(wanted, "SKU", "Kettle", Money(1990, "EUR"), active=True) for wanted in product_ids
        }


class _OlderClock:
    """What is placed by it is overdue."""

    def now(self) -> Any:
        return SystemClock().now() - 2 * ORDER_TIMEOUT


class World:
    """The domains' stores, opened, and what to ask of them; `meter` reads what was spent so far."""

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
        """What `prepare` of an operation made for it."""

    def order(self) -> OrderSample:
        """Any order."""
        return self.random.choice(self._orders)

    def product(self) -> str:
        """Any product's id."""
        return self.random.choice(self._products)

    def number(self) -> int:
        """Any product's or account's number."""
        return self.random.randrange(min(len(self._products), len(self._users)))

    def customer(self) -> Identity:
        """Anybody."""
        return Identity(self.random.choice(self._users), frozenset({"customer"}))

    async def tidy(self) -> None:
        """Publish nothing, but forget the events, as if they were."""
        for store in self.stores.values():
            while rows := await store.outbox(self.clock.now() + timedelta(days=1), 1000):
                await store.outbox_published([row.id for row in rows])

    async def close(self) -> None:
        """Let go of the stores."""
        for store in self.stores.values():
            await store.close()


Step = Callable[[World], Awaitable[Any]]


class Operation(NamedTuple):
    """Something to measure: `call` is timed, `prepare`, which may make its case, is not."""

    call: Step
    prepare: Step | None = None
    calls: int = 500


async def measure(world: World, operation: Operation, calls: int) -> float:
    """What one call spends, on average."""
    total = 0.0
    for _ in range(calls):
        if operation.prepare:
            await operation.prepare(world)
        before = world.meter()
        await operation.call(world)
        total += world.meter() - before
    await world.tidy()
    return total / calls


async def _get_order(world: World) -> None:
    order = world.order()
    found = await world.orders.get(order.id, Identity(order.user_id, frozenset({"customer"})))
    assert found.id == order.id


async def _list_orders(world: World, who: Identity, cursor: str = "") -> None:
    query = ListOrders(everybody=who is _BOSS, limit=_PAGE, cursor=cursor)
    await world.orders.list_orders(query, who)


async def _list_mine(world: World) -> None:
    await _list_orders(world, Identity(world.order().user_id, frozenset({"customer"})))


async def _list_all(world: World) -> None:
    await _list_orders(world, _BOSS)


async def _list_deep(world: World) -> None:
    order = world.order()
    listing = Listing("order", "all", "any", descending=True)
    await _list_orders(world, _BOSS, cursor_after(listing, order.created_at, order.id))


async def _place(world: World) -> None:
    command = PlaceOrder([RequestedLine(world.product(), 1)], _HOME, "tok_ok", uuid7(), fingerprint="f")
    world.last = await world.orders.place(command, world.customer())


async def _capture(world: World) -> None:
    order: Order = world.last
    event = PaymentCaptured(order_id=order.id, payment_id="pay", amount=order.total)
    await world.orders.on_payment_captured(event, inbox_record("/payments", uuid7(), world.clock.now()))


async def _place_overdue(world: World) -> None:
    command = PlaceOrder([RequestedLine(world.product(), 1)], _HOME, "tok_ok")
    await world.overdue_orders.place(command, world.customer())


async def _sweep_orders(world: World) -> None:
    await world.orders.sweep()


async def _get_product(world: World) -> None:
    world.last = await world.products.get(world.product(), ANONYMOUS)


async def _list_category(world: World) -> None:
    await _search(world, "", category=world.random.choice(CATEGORIES))


async def _search(world: World, text: str, category: str = "", *, found: bool = True) -> Sequence[Product]:
    page = await world.products.list_products(ListProducts(category, text, _PAGE), ANONYMOUS)
    assert bool(page.items) == found, text
    return page.items


async def _search_common(world: World) -> None:
    await _search(world, COMMON)


async def _search_prefix(world: World) -> None:
    await _search(world, COMMON[:4])


async def _search_two(world: World) -> None:
    name = world.last.name.lower().split()
    await _search(world, f"{name[0][:4]} {name[1]}")


async def _search_rare(world: World) -> None:
    await _search(world, sku(world.number()))


async def _search_nothing(world: World) -> None:
    await _search(world, "kettlexyz", found=False)


async def _reserve(world: World) -> None:
    await _reserve_by(world.stock, world)


async def _reserve_by(stock: StockService, world: World) -> None:
    line = Line(world.product(), 1, Money(1990, "EUR"))
    order = OrderPlaced(order_id=new_id("ord"), user_id="usr", lines=[line], total=line.unit_price)
    await stock.on_order_placed(order, inbox_record("/orders", uuid7(), world.clock.now()))


async def _reserve_overdue(world: World) -> None:
    await _reserve_by(world.expired_stock, world)


async def _sweep_reservations(world: World) -> None:
    await world.stock.sweep()


async def _get_user(world: World) -> None:
    who = world.customer()
    await world.users.get(who.subject, who)


async def _find_email(world: World) -> None:
    assert await world.people.get(EmailClaim, email_key(f"person.{world.number()}@example.com"))


async def _list_users(world: World) -> None:
    await world.users.list_users(ListUsers(_PAGE), _BOSS)


async def _make_guards(world: World) -> None:
    for _ in range(20):
        record = IdempotencyRecord(uuid7(), timedelta(seconds=-1))
        await world.stores["orders"].transact([], lambda _: Changes(None), idempotency=record)


async def _expire(world: World) -> None:
    await world.stores["orders"].expire(world.clock.now())


async def _sweep_outbox(world: World) -> None:
    await world.stores["orders"].outbox(world.clock.now(), 5000)


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
    "search: two words": Operation(_search_two, prepare=_get_product, calls=100),
    "search: one SKU": Operation(_search_rare, calls=50),
    "search: nothing like it": Operation(_search_nothing, calls=50),
    "handle order.placed: reserve": Operation(_reserve, calls=100),
    "sweep: let go of a reservation": Operation(_sweep_reservations, prepare=_reserve_overdue, calls=50),
    "get a user": Operation(_get_user, calls=_MANY),
    "find an e-mail": Operation(_find_email, calls=_MANY),
    "list users": Operation(_list_users),
}
