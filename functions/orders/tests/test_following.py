"""Reading, listing, cancelling, shipping and delivering: permitted callers and states."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from events.catalog import OrderDelivered, OrderShipped
from functions.orders.domain import PLATFORM_REASONS, Order, Status
from functions.orders.service import CancelOrder, ListOrders
from functions.orders.tests.shop import ADA, ADMINISTRATOR, BOB, PAYMENTS, Shop, captured, rejected, reserved
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import ANONYMOUS, Identity
from functions.runtime.store.port import Page


async def listed(shop: Shop, caller: Identity, **query: Any) -> Page[Order]:
    return await shop.orders.list_orders(ListOrders(**query), caller)


async def refused(call: Awaitable[object]) -> tuple[Code, str]:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value.code, caught.value.reason


async def test_one_reads_ones_own_order_and_an_admin_reads_any(shop: Shop) -> None:
    order = await shop.place()
    for caller in (ADA, ADMINISTRATOR):
        assert (await shop.orders.get(order.id, caller)).id == order.id


async def test_anothers_order_is_not_found_whatever_is_tried(shop: Shop) -> None:
    order = await shop.place()
    before = await shop.read(order.id)
    tries: list[Callable[[], Awaitable[object]]] = [
        lambda: shop.orders.get(order.id, BOB),
        lambda: shop.orders.cancel(CancelOrder(order.id), BOB),
        lambda: shop.orders.watch(order.id, BOB),
    ]
    for attempt in tries:
        assert await refused(attempt()) == (Code.NOT_FOUND, "ORDER_NOT_FOUND")
    assert await shop.read(order.id) == before


@pytest.mark.parametrize("order_id", ["", "nonsense", "ord_" + "0" * 32, "usr_" + "0" * 32, "ord_" + "0" * 5000])
async def test_an_order_that_does_not_exist_is_not_found(shop: Shop, order_id: str) -> None:
    assert await refused(shop.orders.get(order_id, ADA)) == (Code.NOT_FOUND, "ORDER_NOT_FOUND")
    assert (await refused(shop.orders.cancel(CancelOrder(order_id), ADA)))[0] is Code.NOT_FOUND


async def test_without_a_token_nothing_is_told(shop: Shop) -> None:
    order = await shop.place()
    assert (await refused(shop.orders.get(order.id, ANONYMOUS)))[0] is Code.UNAUTHENTICATED
    assert (await refused(listed(shop, ANONYMOUS)))[0] is Code.UNAUTHENTICATED
    assert (await refused(shop.orders.get(order.id, PAYMENTS)))[0] is Code.PERMISSION_DENIED


async def placed_in_a_row(shop: Shop, how_many: int, caller: Identity = ADA) -> list[str]:
    ids = []
    for _ in range(how_many):
        ids.append((await shop.place(caller=caller)).id)
        shop.clock.advance(timedelta(seconds=1))
    return ids


async def test_ones_own_orders_are_listed_newest_first_page_by_page(shop: Shop) -> None:
    ids = await placed_in_a_row(shop, 5)
    await placed_in_a_row(shop, 2, caller=BOB)
    first = await listed(shop, ADA, limit=3)
    assert first.next_cursor
    rest = await listed(shop, ADA, limit=3, cursor=first.next_cursor)
    assert [order.id for order in first.items + rest.items] == ids[::-1]
    assert rest.next_cursor is None


async def test_a_listing_by_status_follows_the_orders(shop: Shop) -> None:
    ids = await placed_in_a_row(shop, 3)
    await shop.receive(captured(await shop.read(ids[1])))
    for caller, everybody in ((ADA, False), (ADMINISTRATOR, True)):
        confirmed = await listed(shop, caller, everybody=everybody, status=Status.CONFIRMED)
        waiting = await listed(shop, caller, everybody=everybody, status=Status.PLACED)
        assert [order.id for order in confirmed.items] == [ids[1]]
        assert [order.id for order in waiting.items] == [ids[2], ids[0]]


async def test_an_admin_lists_everybodys_or_one_persons_orders(shop: Shop) -> None:
    adas, bobs = await placed_in_a_row(shop, 2), await placed_in_a_row(shop, 2, caller=BOB)
    everybodys = await listed(shop, ADMINISTRATOR, everybody=True)
    assert [order.id for order in everybodys.items] == (adas + bobs)[::-1]
    for everybody in (True, False):
        one = await listed(shop, ADMINISTRATOR, user_id=BOB.subject, everybody=everybody)
        assert [order.id for order in one.items] == bobs[::-1]
    assert not (await listed(shop, ADMINISTRATOR)).items


async def test_a_customer_lists_nobody_elses_orders(shop: Shop) -> None:
    assert (await refused(listed(shop, ADA, everybody=True)))[0] is Code.PERMISSION_DENIED
    assert (await refused(listed(shop, ADA, user_id=BOB.subject)))[0] is Code.PERMISSION_DENIED
    assert not (await listed(shop, ADA, user_id=ADA.subject)).items


@pytest.mark.parametrize("limit", [-1, 101])
async def test_a_page_has_at_most_a_hundred(shop: Shop, limit: int) -> None:
    assert await refused(listed(shop, ADA, limit=limit)) == (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT")


async def test_a_cursor_of_another_listing_is_refused(shop: Shop) -> None:
    await placed_in_a_row(shop, 2)
    cursor = (await listed(shop, ADA, limit=1)).next_cursor or ""
    assert await refused(listed(shop, BOB, cursor=cursor)) == (Code.INVALID_ARGUMENT, "INVALID_CURSOR")


async def test_an_order_is_cancelled_with_a_reason(shop: Shop) -> None:
    order = await shop.confirmed()
    cancelled = await shop.orders.cancel(CancelOrder(order.id, "CHANGED_MIND"), ADA)
    assert (cancelled.status, cancelled.cancel_reason) == (Status.CANCELLED, "CHANGED_MIND")
    assert (cancelled.timeline[-1].status, cancelled.timeline[-1].reason) == (
        Status.CANCELLED,
        "CHANGED_MIND",
    )
    assert cancelled.version == order.version + 1
    assert shop.cancellations == ["CHANGED_MIND"]


async def test_without_a_reason_it_was_the_customers_request(shop: Shop) -> None:
    order = await shop.place()
    cancelled = await shop.orders.cancel(CancelOrder(order.id), ADA)
    assert cancelled.cancel_reason == "CUSTOMER_REQUEST"


@pytest.mark.parametrize("reason", ["because", "WITH SPACE", "X" * 65, "_X", "<B>"])
async def test_a_reason_is_upper_snake(shop: Shop, reason: str) -> None:
    order = await shop.place()
    with pytest.raises(ServiceError) as caught:
        await shop.orders.cancel(CancelOrder(order.id, reason), ADA)
    assert [violation.field for violation in caught.value.violations] == ["reason"]


@pytest.mark.parametrize("reason", sorted(PLATFORM_REASONS))
async def test_a_reason_of_the_platforms_own_is_nobody_elses_to_give(shop: Shop, reason: str) -> None:
    order = await shop.place()
    with pytest.raises(ServiceError) as caught:
        await shop.orders.cancel(CancelOrder(order.id, reason), ADA)
    assert [violation.field for violation in caught.value.violations] == ["reason"]


async def test_cancelling_twice_is_cancelling_once(shop: Shop) -> None:
    order = await shop.place()
    first = await shop.orders.cancel(CancelOrder(order.id), ADA)
    again = await shop.orders.cancel(CancelOrder(order.id, "OTHER_REASON"), ADA)
    assert again == first
    assert shop.cancellations == ["CUSTOMER_REQUEST"]


async def test_cancelling_what_someone_else_cancelled_is_illegal(shop: Shop) -> None:
    order = await shop.place()
    await shop.receive(rejected(order))
    for caller in (ADA, ADMINISTRATOR):
        call = shop.orders.cancel(CancelOrder(order.id), caller)
        assert await refused(call) == (Code.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")


async def test_an_admin_ships_and_delivers_a_confirmed_order(shop: Shop) -> None:
    order = await shop.confirmed()
    shipped = await shop.orders.ship(order.id, ADMINISTRATOR)
    delivered = await shop.orders.deliver(order.id, ADMINISTRATOR)
    assert (shipped.status, delivered.status) == (Status.SHIPPED, Status.DELIVERED)
    assert [entry.status.value for entry in delivered.timeline] == [
        "PLACED",
        "RESERVED",
        "CONFIRMED",
        "SHIPPED",
        "DELIVERED",
    ]
    assert len(shop.recorded(OrderShipped)) == len(shop.recorded(OrderDelivered)) == 1


async def test_a_customer_ships_and_delivers_nothing(shop: Shop) -> None:
    order = await shop.confirmed()
    for act in (shop.orders.ship, shop.orders.deliver):
        assert (await refused(act(order.id, ADA)))[0] is Code.PERMISSION_DENIED


async def test_no_step_is_skipped_and_none_is_taken_twice(shop: Shop) -> None:
    illegal = (Code.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")
    order = await shop.place()
    assert await refused(shop.orders.ship(order.id, ADMINISTRATOR)) == illegal
    await shop.receive(reserved(order))
    assert await refused(shop.orders.ship(order.id, ADMINISTRATOR)) == illegal
    await shop.receive(captured(order))
    assert await refused(shop.orders.deliver(order.id, ADMINISTRATOR)) == illegal
    await shop.orders.ship(order.id, ADMINISTRATOR)
    assert await refused(shop.orders.ship(order.id, ADMINISTRATOR)) == illegal
    assert await refused(shop.orders.cancel(CancelOrder(order.id), ADA)) == illegal
    await shop.orders.deliver(order.id, ADMINISTRATOR)
    assert await refused(shop.orders.cancel(CancelOrder(order.id), ADA)) == illegal
