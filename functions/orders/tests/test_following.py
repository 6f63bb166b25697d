"""Reading, listing, cancelling, shipping and delivering: who may, and in which state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from events.catalog import OrderDelivered, OrderShipped
from functions.orders import service
from functions.orders.domain import PLATFORM_REASONS, Order, Status
from functions.orders.tests.world import ADA, BOB, BOSS, PAYMENTS, World, captured, rejected, reserved
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import ANONYMOUS, Identity
from functions.runtime.store.port import Page


async def listed(
    world: World,
    caller: Identity,
    *,
    user_id: str = "",
    everybody: bool = False,
    status: Status | None = None,
    limit: int = 0,
    cursor: str = "",
) -> Page[Order]:
    return await service.list_orders(
        world.orders, caller, user_id=user_id, everybody=everybody, status=status, limit=limit, cursor=cursor
    )


async def refused(call: Awaitable[object]) -> tuple[Code, str]:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value.code, caught.value.reason


async def test_one_reads_ones_own_order_and_an_admin_reads_any(world: World) -> None:
    order = await world.place()
    for caller in (ADA, BOSS):
        assert (await service.get(world.orders, caller, order.id)).id == order.id


async def test_anothers_order_is_not_found_whatever_is_tried(world: World) -> None:
    order = await world.place()
    before = await world.read(order.id)
    tries: list[Callable[[], Awaitable[object]]] = [
        lambda: service.get(world.orders, BOB, order.id),
        lambda: service.cancel(world.orders, world.clock, BOB, order.id, ""),
        lambda: service.watch(world.orders, world.watchers, BOB, order.id),
    ]
    for attempt in tries:
        assert await refused(attempt()) == (Code.NOT_FOUND, "ORDER_NOT_FOUND")
    assert await world.read(order.id) == before


@pytest.mark.parametrize(
    "order_id", ["", "nonsense", "ord_" + "0" * 32, "usr_" + "0" * 32, "ord_" + "0" * 5000]
)
async def test_an_order_that_does_not_exist_is_not_found(world: World, order_id: str) -> None:
    assert await refused(service.get(world.orders, ADA, order_id)) == (Code.NOT_FOUND, "ORDER_NOT_FOUND")
    assert (await refused(service.cancel(world.orders, world.clock, ADA, order_id, "")))[0] is Code.NOT_FOUND


async def test_without_a_token_nothing_is_told(world: World) -> None:
    order = await world.place()
    assert (await refused(service.get(world.orders, ANONYMOUS, order.id)))[0] is Code.UNAUTHENTICATED
    assert (await refused(listed(world, ANONYMOUS)))[0] is Code.UNAUTHENTICATED
    assert (await refused(service.get(world.orders, PAYMENTS, order.id)))[0] is Code.PERMISSION_DENIED


async def placed_in_a_row(world: World, how_many: int, caller: Identity = ADA) -> list[str]:
    ids = []
    for _ in range(how_many):
        ids.append((await world.place(caller=caller)).id)
        world.clock.advance(timedelta(seconds=1))
    return ids


async def test_ones_own_orders_are_listed_newest_first_page_by_page(world: World) -> None:
    ids = await placed_in_a_row(world, 5)
    await placed_in_a_row(world, 2, caller=BOB)
    first = await listed(world, ADA, limit=3)
    assert first.next_cursor
    rest = await listed(world, ADA, limit=3, cursor=first.next_cursor)
    assert [order.id for order in first.items + rest.items] == ids[::-1]
    assert rest.next_cursor is None


async def test_a_listing_by_status_follows_the_orders(world: World) -> None:
    ids = await placed_in_a_row(world, 3)
    await world.hear(captured(await world.read(ids[1])))
    for caller, everybody in ((ADA, False), (BOSS, True)):
        confirmed = await listed(world, caller, everybody=everybody, status=Status.CONFIRMED)
        waiting = await listed(world, caller, everybody=everybody, status=Status.PLACED)
        assert [order.id for order in confirmed.items] == [ids[1]]
        assert [order.id for order in waiting.items] == [ids[2], ids[0]]


async def test_an_admin_lists_everybodys_or_one_persons_orders(world: World) -> None:
    adas, bobs = await placed_in_a_row(world, 2), await placed_in_a_row(world, 2, caller=BOB)
    everybodys = await listed(world, BOSS, everybody=True)
    assert [order.id for order in everybodys.items] == (adas + bobs)[::-1]
    for everybody in (True, False):
        one = await listed(world, BOSS, user_id=BOB.subject, everybody=everybody)
        assert [order.id for order in one.items] == bobs[::-1]
    assert not (await listed(world, BOSS)).items


async def test_a_customer_lists_nobody_elses_orders(world: World) -> None:
    assert (await refused(listed(world, ADA, everybody=True)))[0] is Code.PERMISSION_DENIED
    assert (await refused(listed(world, ADA, user_id=BOB.subject)))[0] is Code.PERMISSION_DENIED
    assert not (await listed(world, ADA, user_id=ADA.subject)).items


@pytest.mark.parametrize("limit", [-1, 101])
async def test_a_page_has_at_most_a_hundred(world: World, limit: int) -> None:
    assert await refused(listed(world, ADA, limit=limit)) == (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT")


async def test_a_cursor_of_another_listing_is_refused(world: World) -> None:
    await placed_in_a_row(world, 2)
    cursor = (await listed(world, ADA, limit=1)).next_cursor or ""
    assert await refused(listed(world, BOB, cursor=cursor)) == (Code.INVALID_ARGUMENT, "INVALID_CURSOR")


async def test_an_order_is_cancelled_with_a_reason(world: World) -> None:
    order = await world.confirmed()
    cancelled = await service.cancel(world.orders, world.clock, ADA, order.id, "CHANGED_MIND")
    assert (cancelled.status, cancelled.cancel_reason) == (Status.CANCELLED, "CHANGED_MIND")
    assert (cancelled.timeline[-1].status, cancelled.timeline[-1].reason) == (
        Status.CANCELLED,
        "CHANGED_MIND",
    )
    assert cancelled.version == order.version + 1
    assert world.cancellations == ["CHANGED_MIND"]


async def test_without_a_reason_it_was_the_customers_request(world: World) -> None:
    order = await world.place()
    cancelled = await service.cancel(world.orders, world.clock, ADA, order.id, "")
    assert cancelled.cancel_reason == "CUSTOMER_REQUEST"


@pytest.mark.parametrize("reason", ["because", "WITH SPACE", "X" * 65, "_X", "<B>"])
async def test_a_reason_is_upper_snake(world: World, reason: str) -> None:
    order = await world.place()
    with pytest.raises(ServiceError) as caught:
        await service.cancel(world.orders, world.clock, ADA, order.id, reason)
    assert [violation.field for violation in caught.value.violations] == ["reason"]


@pytest.mark.parametrize("reason", sorted(PLATFORM_REASONS))
async def test_a_reason_of_the_platforms_own_is_nobody_elses_to_give(world: World, reason: str) -> None:
    order = await world.place()
    with pytest.raises(ServiceError) as caught:
        await service.cancel(world.orders, world.clock, ADA, order.id, reason)
    assert [violation.field for violation in caught.value.violations] == ["reason"]


async def test_cancelling_twice_is_cancelling_once(world: World) -> None:
    order = await world.place()
    first = await service.cancel(world.orders, world.clock, ADA, order.id, "")
    again = await service.cancel(world.orders, world.clock, ADA, order.id, "OTHER_REASON")
    assert again == first
    assert world.cancellations == ["CUSTOMER_REQUEST"]


async def test_cancelling_what_someone_else_cancelled_is_illegal(world: World) -> None:
    order = await world.place()
    await world.hear(rejected(order))
    for caller in (ADA, BOSS):
        call = service.cancel(world.orders, world.clock, caller, order.id, "")
        assert await refused(call) == (Code.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")


async def test_an_admin_ships_and_delivers_a_confirmed_order(world: World) -> None:
    order = await world.confirmed()
    shipped = await service.ship(world.orders, world.clock, BOSS, order.id)
    delivered = await service.deliver(world.orders, world.clock, BOSS, order.id)
    assert (shipped.status, delivered.status) == (Status.SHIPPED, Status.DELIVERED)
    assert [entry.status.value for entry in delivered.timeline] == [
        "PLACED",
        "RESERVED",
        "CONFIRMED",
        "SHIPPED",
        "DELIVERED",
    ]
    assert len(world.recorded(OrderShipped)) == len(world.recorded(OrderDelivered)) == 1


async def test_a_customer_ships_and_delivers_nothing(world: World) -> None:
    order = await world.confirmed()
    for act in (service.ship, service.deliver):
        assert (await refused(act(world.orders, world.clock, ADA, order.id)))[0] is Code.PERMISSION_DENIED


async def test_no_step_is_skipped_and_none_is_taken_twice(world: World) -> None:
    illegal = (Code.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")
    order = await world.place()
    assert await refused(service.ship(world.orders, world.clock, BOSS, order.id)) == illegal
    await world.hear(reserved(order))
    assert await refused(service.ship(world.orders, world.clock, BOSS, order.id)) == illegal
    await world.hear(captured(order))
    assert await refused(service.deliver(world.orders, world.clock, BOSS, order.id)) == illegal
    await service.ship(world.orders, world.clock, BOSS, order.id)
    assert await refused(service.ship(world.orders, world.clock, BOSS, order.id)) == illegal
    assert await refused(service.cancel(world.orders, world.clock, ADA, order.id, "")) == illegal
    await service.deliver(world.orders, world.clock, BOSS, order.id)
    assert await refused(service.cancel(world.orders, world.clock, ADA, order.id, "")) == illegal
