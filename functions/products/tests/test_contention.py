from __future__ import annotations

import asyncio
import random

import pytest

from events.catalog import OrderPlaced, Payload, StockLow, StockRejected, StockReserved
from functions.products.domain import UpdateProduct
from functions.products.stock.domain import State
from functions.products.stock.service import SetStock
from functions.products.store import MAPPINGS
from functions.products.tests.shop import (
    ADMIN,
    Shop,
    cancelled,
    confirmed,
    create_product,
    placed,
    products_service,
)
from functions.runtime.clock import ManualClock
from functions.runtime.ids import new_id
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.planning import Plan
from functions.runtime.store.port import AlreadyDone


async def test_of_200_orders_at_once_for_50_pieces_exactly_50_get_one(shop: Shop) -> None:
    product = await shop.add(50)
    orders = [placed((product.id, 1)) for _ in range(200)]

    await asyncio.gather(*(shop.receive(order) for order in orders))

    assert await shop.counts(product.id) == (50, 50)
    reserved = {event.order_id for event in await shop.events(StockReserved)}
    rejected = {event.order_id for event in await shop.events(StockRejected)}
    assert (len(reserved), len(rejected)) == (50, 150)
    assert reserved | rejected == {order.order_id for order in orders}
    assert len(await shop.events(StockLow)) == 1

    await asyncio.gather(*(shop.receive(confirmed(order_id)) for order_id in reserved))
    assert await shop.counts(product.id) == (0, 0)


async def test_orders_for_several_products_at_once_never_oversell(shop: Shop) -> None:
    products = [(await shop.add(20)).id for _ in range(3)]
    orders = [placed((products[n % 3], 2), (products[(n + 1) % 3], 1)) for n in range(60)]

    await asyncio.gather(*(shop.receive(order) for order in orders))

    taken = dict.fromkeys(products, 0)
    for event in await shop.events(StockReserved):
        for line in (await shop.reservation(event.order_id)).lines:
            taken[line.product_id] += line.quantity
    assert {product: (await shop.counts(product))[1] for product in products} == taken
    assert all(count <= 20 for count in taken.values())


async def test_all_events_of_an_order_at_once_end_as_one_after_the_other(shop: Shop) -> None:
    product = await shop.add(500)
    kept, ended = [new_id("ord") for _ in range(30)], [new_id("ord") for _ in range(30)]
    steps: list[Payload] = [event(order) for order in [*kept, *ended] for event in (confirmed, confirmed)]
    steps += [placed((product.id, 3), order_id=order) for order in [*kept, *ended] for _ in range(2)]
    steps += [cancelled(order) for order in ended]
    random.Random(7).shuffle(steps)

    await asyncio.gather(*(shop.receive(step) for step in steps))

    assert await shop.counts(product.id) == (500 - 3 * 30, 0)
    assert {(await shop.reservation(order)).state for order in kept} == {State.COMMITTED}
    assert {(await shop.reservation(order)).state for order in ended} == {State.RELEASED}


async def test_an_event_delivered_many_times_at_once_takes_effect_once(shop: Shop) -> None:
    product = await shop.add(50)
    event = placed((product.id, 1))

    results = await asyncio.gather(*(shop.receive(event, "event-1") for _ in range(20)), return_exceptions=True)

    assert [type(result) for result in results if result] == [AlreadyDone] * 19
    assert await shop.counts(product.id) == (50, 1)


@pytest.mark.parametrize("make", [confirmed, cancelled])
async def test_an_event_delivered_twice_is_done_once(shop: Shop, make: object) -> None:
    assert callable(make)
    product, order = await shop.add(50), new_id("ord")
    await shop.receive(placed((product.id, 2), order_id=order))
    await shop.receive(make(order), "event-1")
    before = await shop.counts(product.id)

    with pytest.raises(AlreadyDone):
        await shop.receive(make(order), "event-1")

    assert await shop.counts(product.id) == before


async def test_corrections_and_orders_at_once_lose_nothing(shop: Shop) -> None:
    product = await shop.add(100)
    orders: list[OrderPlaced] = [placed((product.id, 1)) for _ in range(40)]

    await asyncio.gather(
        *(shop.receive(order) for order in orders),
        *(shop.stock.set(SetStock(product.id, 100 + n), ADMIN) for n in range(20)),
    )

    on_hand, reserved = await shop.counts(product.id)
    assert reserved == 40
    assert 100 <= on_hand < 120


class Weighed(MemoryStore):
    """Counts the items that a transaction writes, as DynamoDB would."""

    heaviest = 0

    def _apply(self, planned: Plan) -> None:
        items = sum(1 + len(write.added) + len(write.removed) for write in planned.writes)
        items += len(planned.outbox) + (planned.record is not None)
        self.heaviest = max(self.heaviest, items)
        super()._apply(planned)


async def test_no_change_of_the_catalogue_outgrows_a_transaction_of_dynamodb() -> None:
    clock = ManualClock()
    store = Weighed(MAPPINGS, clock)
    texts = [" ".join(f"{a}{b}{c}" for a in row for b in row for c in row) for row in ("abcdefgh", "stuvwxyz")]

    products = products_service(store, clock)

    product = await products.create(create_product(description=texts[0]), ADMIN)
    command = UpdateProduct(product.id, description=texts[1], category="garden", name="Rake")
    await products.update(command, ADMIN)
    await products.delete(product.id, ADMIN)

    assert 80 < store.heaviest <= 100
