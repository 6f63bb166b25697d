from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from events.catalog import StockLow, StockRejected, StockReserved
from functions.products.domain import UpdateProduct
from functions.products.stock.domain import Reservation, State, Stock
from functions.products.stock.service import AdjustStock, ListAdjustments, SetStock
from functions.products.tests.shop import (
    ADMIN,
    CUSTOMER,
    RESERVATION_TIME,
    Shop,
    cancelled,
    confirmed,
    placed,
)
from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import ANONYMOUS
from functions.runtime.ids import new_id


async def test_stock_is_set_by_admins_only(shop: Shop) -> None:
    product = await shop.add()

    await shop.stock.set(SetStock(product.id, 12), ADMIN)

    assert (await shop.stock_of(product.id)).available == 12
    for caller, code in ((CUSTOMER, Code.PERMISSION_DENIED), (ANONYMOUS, Code.UNAUTHENTICATED)):
        with pytest.raises(ServiceError) as raised:
            await shop.stock.set(SetStock(product.id, 1), caller)
        assert raised.value.code is code


async def test_the_stock_of_an_unknown_or_hidden_product_is_not_found(shop: Shop) -> None:
    hidden = await shop.add(active=False)

    for attempt in (
        shop.stock.get(hidden.id, ANONYMOUS),
        shop.stock.get(new_id("prd"), ADMIN),
        shop.stock.set(SetStock(new_id("prd"), 1), ADMIN),
    ):
        with pytest.raises(ServiceError) as raised:
            await attempt
        assert raised.value.reason == "PRODUCT_NOT_FOUND"


async def test_stock_out_of_bounds_is_refused_by_field(shop: Shop) -> None:
    product = await shop.add(3)

    with pytest.raises(ServiceError) as raised:
        await shop.stock.set(SetStock(product.id, -1, low_threshold=1_000_000_001), ADMIN)

    assert [violation.field for violation in raised.value.violations] == ["on_hand", "low_threshold"]
    assert await shop.counts(product.id) == (3, 0)


async def test_stock_that_changed_since_it_was_read_is_not_set(shop: Shop) -> None:
    product = await shop.add(3)
    version = (await shop.stock_of(product.id)).version
    await shop.receive(placed((product.id, 1)))

    with pytest.raises(ServiceError) as raised:
        await shop.stock.set(SetStock(product.id, 5, version=version), ADMIN)

    assert (raised.value.code, raised.value.reason) == (Code.ABORTED, "VERSION_MISMATCH")


async def test_stock_is_not_set_below_what_is_reserved(shop: Shop) -> None:
    product = await shop.add(5)
    await shop.receive(placed((product.id, 3)))

    with pytest.raises(ServiceError) as raised:
        await shop.stock.set(SetStock(product.id, 2), ADMIN)

    assert (raised.value.code, raised.value.reason) == (Code.FAILED_PRECONDITION, "STOCK_RESERVED")
    await shop.stock.set(SetStock(product.id, 3), ADMIN)
    assert await shop.counts(product.id) == (3, 3)


async def test_an_order_reserves_all_of_its_lines_and_says_until_when(shop: Shop) -> None:
    kettle, pot = await shop.add(5), await shop.add(2)
    order = placed((kettle.id, 2), (pot.id, 1), (kettle.id, 1))

    await shop.receive(order)

    assert await shop.counts(kettle.id) == (5, 3)
    assert await shop.counts(pot.id) == (2, 1)
    assert await shop.events(StockReserved) == [
        StockReserved(order_id=order.order_id, expires_at=shop.clock.now() + RESERVATION_TIME)
    ]


async def test_an_order_that_is_short_of_one_line_reserves_nothing(shop: Shop) -> None:
    kettle, pot = await shop.add(5), await shop.add(2)
    order = placed((kettle.id, 2), (pot.id, 3))

    await shop.receive(order)

    assert await shop.counts(kettle.id) == (5, 0)
    assert await shop.counts(pot.id) == (2, 0)
    assert await shop.events(StockRejected) == [
        StockRejected(order_id=order.order_id, reason="OUT_OF_STOCK", product_ids=[pot.id])
    ]
    assert await shop.events(StockReserved) == []


async def test_lines_of_one_product_are_counted_together(shop: Shop) -> None:
    kettle = await shop.add(5)

    await shop.receive(placed((kettle.id, 3), (kettle.id, 3)))

    assert await shop.counts(kettle.id) == (5, 0)


async def test_what_is_not_for_sale_is_unavailable(shop: Shop) -> None:
    on_sale, hidden, deleted = await shop.add(5), await shop.add(5), await shop.add(5)
    await shop.products.update(UpdateProduct(hidden.id, active=False), ADMIN)
    await shop.products.delete(deleted.id, ADMIN)
    unknown = new_id("prd")
    order = placed((on_sale.id, 9), (hidden.id, 1), (deleted.id, 1), (unknown, 1))

    await shop.receive(order)

    (rejected,) = await shop.events(StockRejected)
    assert rejected.reason == "PRODUCT_UNAVAILABLE"
    assert rejected.product_ids == [hidden.id, deleted.id, unknown]


async def test_a_product_that_is_for_sale_again_can_be_reserved(shop: Shop) -> None:
    product = await shop.add(5, active=False)
    await shop.products.update(UpdateProduct(product.id, active=True), ADMIN)

    await shop.receive(placed((product.id, 1)))

    assert await shop.counts(product.id) == (5, 1)


async def test_a_confirmed_order_takes_its_pieces_off_the_shelf(shop: Shop) -> None:
    product, order = await shop.add(5), new_id("ord")
    await shop.receive(placed((product.id, 2), order_id=order))

    await shop.receive(confirmed(order))

    assert await shop.counts(product.id) == (3, 0)
    assert (await shop.reservation(order)).state is State.COMMITTED


async def test_a_cancelled_order_releases_its_pieces(shop: Shop) -> None:
    product, order = await shop.add(5), new_id("ord")
    await shop.receive(placed((product.id, 2), order_id=order))

    await shop.receive(cancelled(order))

    assert await shop.counts(product.id) == (5, 0)


async def test_an_order_cancelled_after_confirmation_returns_its_pieces_to_the_shelf(shop: Shop) -> None:
    product, order = await shop.add(5), new_id("ord")
    for event in (placed((product.id, 2), order_id=order), confirmed(order), cancelled(order)):
        await shop.receive(event)

    assert await shop.counts(product.id) == (5, 0)


async def test_a_placement_that_comes_after_the_cancellation_reserves_nothing(shop: Shop) -> None:
    product, order = await shop.add(5), new_id("ord")
    await shop.receive(cancelled(order))

    await shop.receive(placed((product.id, 2), order_id=order))

    assert await shop.counts(product.id) == (5, 0)
    assert await shop.events() == []
    assert (await shop.reservation(order)).state is State.RELEASED


async def test_a_placement_that_comes_after_the_confirmation_is_sold_at_once(shop: Shop) -> None:
    product, order = await shop.add(5), new_id("ord")
    await shop.receive(confirmed(order))

    await shop.receive(placed((product.id, 2), order_id=order))

    assert await shop.counts(product.id) == (3, 0)
    assert await shop.events(StockReserved) == []


async def test_a_paid_placement_without_stock_is_rejected(shop: Shop) -> None:
    product, order = await shop.add(1), new_id("ord")
    await shop.receive(confirmed(order))

    await shop.receive(placed((product.id, 2), order_id=order))

    (rejected,) = await shop.events(StockRejected)
    assert rejected.reason == "OUT_OF_STOCK"
    assert await shop.counts(product.id) == (1, 0)


async def test_the_sweep_lets_go_of_what_was_held_too_long(shop: Shop) -> None:
    product, late, fresh = await shop.add(5), new_id("ord"), new_id("ord")
    await shop.receive(placed((product.id, 2), order_id=late))
    shop.clock.advance(RESERVATION_TIME - timedelta(seconds=1))
    await shop.receive(placed((product.id, 1), order_id=fresh))

    await shop.sweep()
    assert await shop.counts(product.id) == (5, 3)
    shop.clock.advance(timedelta(seconds=1))
    for _ in range(2):
        await shop.sweep()

    assert await shop.counts(product.id) == (5, 1)
    assert await shop.events(StockRejected) == [
        StockRejected(order_id=late, reason="RESERVATION_EXPIRED", product_ids=[product.id])
    ]


def test_a_reservation_does_not_expire_before_its_time() -> None:
    now = ManualClock().now()
    stock = Stock(new_id("prd"), "KET-1", for_sale=True, on_hand=5)
    reservation = Reservation(new_id("ord"), created_at=now, expires_at=now)
    reservation.place(placed((stock.id, 2)).lines, {stock.id: stock}, now, RESERVATION_TIME)

    assert reservation.expire({stock.id: stock}, now + RESERVATION_TIME - timedelta(seconds=1)) == []
    assert (reservation.state, stock.reserved) == (State.RESERVED, 2)


async def test_a_confirmation_after_the_expiry_takes_the_pieces_again(shop: Shop) -> None:
    product, order = await shop.add(5), new_id("ord")
    await shop.receive(placed((product.id, 2), order_id=order))
    shop.clock.advance(RESERVATION_TIME)
    await shop.sweep()

    await shop.receive(confirmed(order))

    assert await shop.counts(product.id) == (3, 0)
    assert len(await shop.events(StockRejected)) == 1


async def test_a_confirmation_after_the_expiry_is_rejected_when_others_have_the_pieces(shop: Shop) -> None:
    product, order = await shop.add(2), new_id("ord")
    await shop.receive(placed((product.id, 2), order_id=order))
    shop.clock.advance(RESERVATION_TIME)
    await shop.sweep()
    await shop.receive(placed((product.id, 2)))

    await shop.receive(confirmed(order))

    assert await shop.counts(product.id) == (2, 2)
    assert [event.reason for event in await shop.events(StockRejected)] == ["RESERVATION_EXPIRED"] * 2
    assert (await shop.reservation(order)).state is State.REJECTED


async def test_a_confirmation_before_the_sweep_is_in_time(shop: Shop) -> None:
    product, order = await shop.add(2), new_id("ord")
    await shop.receive(placed((product.id, 2), order_id=order))
    shop.clock.advance(2 * RESERVATION_TIME)

    await shop.receive(confirmed(order))
    await shop.sweep()

    assert await shop.counts(product.id) == (0, 0)
    assert await shop.events(StockRejected) == []


async def test_low_stock_is_told_once_for_each_time_it_gets_low(shop: Shop) -> None:
    product, order = await shop.add(), new_id("ord")
    await shop.stock.set(SetStock(product.id, 7, low_threshold=5), ADMIN)
    assert await shop.events(StockLow) == []

    await shop.receive(placed((product.id, 2)))
    assert await shop.events(StockLow) == []
    await shop.receive(placed((product.id, 1), order_id=order))
    await shop.receive(placed((product.id, 1)))
    await shop.receive(confirmed(order))
    low = StockLow(product_id=product.id, sku=product.sku, available=4, threshold=5)
    assert await shop.events(StockLow) == [low]

    await shop.stock.set(SetStock(product.id, 100), ADMIN)
    await shop.stock.set(SetStock(product.id, 6), ADMIN)
    assert [event.available for event in await shop.events(StockLow)] == [4, 3]


async def test_raising_the_threshold_above_what_is_available_is_told(shop: Shop) -> None:
    product = await shop.add(7)

    await shop.stock.set(SetStock(product.id, 7, low_threshold=8), ADMIN)

    assert len(await shop.events(StockLow)) == 1


async def test_declined_orders_of_a_product_at_its_threshold_are_told_of_once(shop: Shop) -> None:
    product = await shop.add(5)
    for _ in range(12):
        order = new_id("ord")
        await shop.receive(placed((product.id, 1), order_id=order))
        await shop.receive(cancelled(order))
        shop.clock.advance(timedelta(minutes=1))

    assert len(await shop.events(StockLow)) == 1


async def test_a_large_order_that_is_declined_does_not_make_low_stock_news_again(shop: Shop) -> None:
    product = await shop.add(100)
    for _ in range(3):
        order = new_id("ord")
        await shop.receive(placed((product.id, 97), order_id=order))
        await shop.receive(cancelled(order))

    assert len(await shop.events(StockLow)) == 1


async def test_low_stock_is_told_again_a_day_later(shop: Shop) -> None:
    product = await shop.add(5)
    for _ in range(2):
        order = new_id("ord")
        await shop.receive(placed((product.id, 1), order_id=order))
        await shop.receive(cancelled(order))
        shop.clock.advance(timedelta(days=1))

    assert len(await shop.events(StockLow)) == 2


async def test_low_stock_is_told_again_after_it_was_filled_up_clearly(shop: Shop) -> None:
    product = await shop.add(5)
    await shop.receive(placed((product.id, 1)))
    await adjust(shop, product.id, 1)  # 5 available: at the threshold, which is not clearly above
    await shop.receive(placed((product.id, 1)))
    assert len(await shop.events(StockLow)) == 1

    await adjust(shop, product.id, 3)
    await shop.receive(placed((product.id, 3)))
    assert len(await shop.events(StockLow)) == 2


async def adjust(shop: Shop, product_id: str, delta: int, reason: str = "count", key: str | None = None) -> str:
    entry = await shop.stock.adjust(AdjustStock(product_id, delta=delta, reason=reason, idempotency_key=key), ADMIN)
    return entry.id


async def ledger(shop: Shop, product_id: str) -> list[tuple[str, int, int, str]]:
    found = await shop.stock.list_adjustments(ListAdjustments(product_id, 20, ""), ADMIN)
    return [(entry.kind.value, entry.delta, entry.on_hand, entry.reason) for entry in found.items]


async def test_stock_is_adjusted_by_a_difference_whatever_was_sold_meanwhile(shop: Shop) -> None:
    product, order = await shop.add(10), new_id("ord")
    await shop.receive(placed((product.id, 4), order_id=order))
    await shop.receive(confirmed(order))

    await adjust(shop, product.id, 20, "delivery 17")
    shop.clock.advance(timedelta(seconds=1))
    await adjust(shop, product.id, -1, "  broken ")

    assert await shop.counts(product.id) == (25, 0)
    assert await ledger(shop, product.id) == [
        ("ADJUSTMENT", -1, 25, "broken"),
        ("ADJUSTMENT", 20, 26, "delivery 17"),
        ("CORRECTION", 10, 10, ""),
    ]


async def test_setting_stock_is_entered_as_a_correction_and_setting_the_same_is_not(shop: Shop) -> None:
    product = await shop.add(10)
    for on_hand in (7, 7):
        await shop.stock.set(SetStock(product.id, on_hand), ADMIN)

    assert await ledger(shop, product.id) == [("CORRECTION", -3, 7, ""), ("CORRECTION", 10, 10, "")]


async def test_the_same_key_adjusts_once(shop: Shop) -> None:
    product = await shop.add(10)
    first, again = [await adjust(shop, product.id, 5, key="delivery-17") for _ in range(2)]

    assert first == again
    assert await shop.counts(product.id) == (15, 0)
    with pytest.raises(ServiceError) as raised:
        await adjust(shop, product.id, 6, key="delivery-17")
    assert raised.value.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_adjustments_at_once_all_count(shop: Shop) -> None:
    product = await shop.add(10)
    await asyncio.gather(*(adjust(shop, product.id, delta) for delta in (5, -3, 7, -9)))

    assert await shop.counts(product.id) == (10, 0)
    assert len(await ledger(shop, product.id)) == 5


async def test_stock_is_not_adjusted_below_what_is_reserved(shop: Shop) -> None:
    product = await shop.add(5)
    await shop.receive(placed((product.id, 3)))
    await adjust(shop, product.id, -2)

    with pytest.raises(ServiceError) as raised:
        await adjust(shop, product.id, -1)

    assert (raised.value.code, raised.value.reason) == (Code.FAILED_PRECONDITION, "STOCK_RESERVED")
    assert await shop.counts(product.id) == (3, 3)


@pytest.mark.parametrize(
    ("delta", "reason", "key", "fields"),
    [
        (0, "count", None, ["delta"]),
        (2**31, "count", None, ["delta"]),
        (999_999_999, "count", None, ["delta"]),
        (1, " ", "", ["idempotency_key", "reason"]),
        (1, "two\nlines", None, ["reason"]),
        (1, "x" * 201, None, ["reason"]),
    ],
)
async def test_an_adjustment_has_bounds(
    shop: Shop, delta: int, reason: str, key: str | None, fields: list[str]
) -> None:
    product = await shop.add(10)
    with pytest.raises(ServiceError) as raised:
        await adjust(shop, product.id, delta, reason, key)
    assert [violation.field for violation in raised.value.violations] == fields
    assert await shop.counts(product.id) == (10, 0)


async def test_the_ledger_is_read_page_by_page_by_admins_only(shop: Shop) -> None:
    product, other = await shop.add(), await shop.add(3)
    for delta in (1, 2, 3):
        shop.clock.advance(timedelta(seconds=1))
        await adjust(shop, product.id, delta)

    first = await shop.stock.list_adjustments(ListAdjustments(product.id, 2, ""), ADMIN)
    rest = await shop.stock.list_adjustments(ListAdjustments(product.id, 2, first.next_cursor or ""), ADMIN)
    assert [entry.delta for entry in (*first.items, *rest.items)] == [3, 2, 1]
    assert rest.next_cursor is None
    assert {entry.by for entry in first.items} == {ADMIN.subject}
    assert len(await ledger(shop, other.id)) == 1
    for caller, code in ((CUSTOMER, Code.PERMISSION_DENIED), (ANONYMOUS, Code.UNAUTHENTICATED)):
        with pytest.raises(ServiceError) as raised:
            await shop.stock.list_adjustments(ListAdjustments(product.id, 2, ""), caller)
        assert raised.value.code is code
        with pytest.raises(ServiceError) as raised:
            await shop.stock.adjust(AdjustStock(product.id, delta=1, reason="mine"), caller)
        assert raised.value.code is code


async def test_the_ledger_of_an_unknown_product_is_not_found(shop: Shop) -> None:
    for attempt in (adjust(shop, new_id("prd"), 1), ledger(shop, new_id("prd"))):
        with pytest.raises(ServiceError) as raised:
            await attempt
        assert raised.value.reason == "PRODUCT_NOT_FOUND"


def test_stock_that_was_stored_before_there_was_a_ledger_is_read() -> None:
    old = b'{"id":"prd_1","sku":"A","for_sale":true,"on_hand":3,"reserved":1,"low_threshold":5,"version":7}'
    assert msgspec.json.decode(old, type=Stock).low_told_at is None
