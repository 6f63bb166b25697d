"""What events do to an order: in order, late, twice, and when they should never have come."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from events.catalog import Money, OrderCancelled, Payload, subscriptions_of
from functions.orders import service
from functions.orders.domain import Order, Status
from functions.orders.tests.world import (
    ADA,
    BOB,
    BOSS,
    PATIENCE,
    FailingStore,
    World,
    captured,
    declined,
    deleted,
    refunded,
    rejected,
    reserved,
    wanted,
)
from functions.runtime.errors import Code, ServiceError
from functions.runtime.inbox import mark


def steps(order: Order) -> list[tuple[str, str]]:
    return [(entry.status.value, entry.reason) for entry in order.timeline]


async def test_there_is_a_handler_for_every_event_that_orders_subscribes_to(world: World) -> None:
    assert {payload.TYPE for payload in world.handlers} == subscriptions_of("orders")


async def test_stock_and_payment_make_a_confirmed_order(world: World) -> None:
    order = await world.place()
    await world.hear(reserved(order))
    assert (await world.read(order.id)).status is Status.RESERVED
    world.clock.advance(timedelta(seconds=2))
    await world.hear(captured(order))
    confirmed = await world.read(order.id)
    assert steps(confirmed) == [("PLACED", ""), ("RESERVED", ""), ("CONFIRMED", "")]
    assert confirmed.settled_at == order.created_at + timedelta(seconds=2)
    assert confirmed.payment_token == ""
    assert world.confirmations == 1


async def test_a_payment_that_overtakes_the_reservation_implies_it(world: World) -> None:
    order = await world.place()
    await world.hear(captured(order))
    confirmed = await world.read(order.id)
    assert steps(confirmed) == [("PLACED", ""), ("RESERVED", ""), ("CONFIRMED", "")]
    await world.hear(reserved(order))
    assert await world.read(order.id) == confirmed


@pytest.mark.parametrize("reason", ["OUT_OF_STOCK", "PRODUCT_UNAVAILABLE"])
async def test_without_stock_an_order_is_cancelled(world: World, reason: str) -> None:
    order = await world.place()
    await world.hear(rejected(order, reason))
    cancelled = await world.read(order.id)
    assert steps(cancelled) == [("PLACED", ""), ("CANCELLED", reason)]
    assert cancelled.payment_token == ""
    assert world.cancellations == [reason]


@pytest.mark.parametrize("reason", ["PAYMENT_DECLINED", "INSUFFICIENT_FUNDS"])
async def test_without_money_an_order_is_cancelled(world: World, reason: str) -> None:
    order = await world.place()
    await world.hear(reserved(order))
    await world.hear(declined(order, reason))
    cancelled = await world.read(order.id)
    assert (cancelled.status, cancelled.cancel_reason, cancelled.payment_token) == (
        Status.CANCELLED,
        reason,
        "",
    )
    assert world.cancellations == [reason]


@pytest.mark.parametrize("paid", [False, True])
async def test_an_expired_reservation_cancels_even_a_paid_order(world: World, paid: bool) -> None:
    order = await world.place()
    await world.hear(reserved(order))
    if paid:
        await world.hear(captured(order))
    await world.hear(rejected(order, "RESERVATION_EXPIRED"))
    assert (await world.read(order.id)).status is Status.CANCELLED
    assert world.cancellations == ["RESERVATION_EXPIRED"]


async def test_stock_lost_after_shipping_is_only_noted_and_only_once(world: World) -> None:
    order = await world.confirmed()
    await service.ship(world.orders, world.clock, BOSS, order.id)
    for _ in range(2):
        await world.hear(rejected(order, "RESERVATION_EXPIRED"))
    shipped = await world.read(order.id)
    assert steps(shipped)[-2:] == [("SHIPPED", ""), ("SHIPPED", "STOCK_LOST_AFTER_SHIPPING")]
    assert not world.cancellations


async def test_a_payment_for_a_cancelled_order_is_only_noted_and_only_once(world: World) -> None:
    order = await world.place()
    await service.cancel(world.orders, world.clock, ADA, order.id, "")
    for _ in range(2):
        await world.hear(captured(order))
    cancelled = await world.read(order.id)
    assert steps(cancelled)[1:] == [
        ("CANCELLED", "CUSTOMER_REQUEST"),
        ("CANCELLED", "PAID_AFTER_CANCELLATION"),
    ]
    assert world.confirmations == 0


async def test_an_old_payment_is_no_news_for_an_order_cancelled_after_it(world: World) -> None:
    order = await world.confirmed()
    cancelled = await service.cancel(world.orders, world.clock, ADA, order.id, "")
    await world.hear(captured(order))
    assert await world.read(order.id) == cancelled


async def test_late_stock_for_a_cancelled_order_changes_nothing(world: World) -> None:
    order = await world.place()
    cancelled = await service.cancel(world.orders, world.clock, ADA, order.id, "")
    for news in (reserved(order), rejected(order), declined(order)):
        await world.hear(news)
    assert await world.read(order.id) == cancelled


async def test_another_amount_than_the_total_is_refused_for_good(world: World) -> None:
    order = await world.place()
    payment = captured(order)
    for amount in (Money(1, "EUR"), Money(payment.amount.amount, "USD")):
        with pytest.raises(ServiceError) as caught:
            await world.hear(_with_amount(payment, amount), event_id="e1")
        assert caught.value.code is Code.FAILED_PRECONDITION
    assert await world.hear(payment, event_id="e1")  # a failed event left no inbox mark


def _with_amount(payment: Payload, amount: Money) -> Payload:
    fields = {name: getattr(payment, name) for name in payment.__struct_fields__} | {"amount": amount}
    return type(payment)(**fields)


async def test_refunds_add_up_and_each_counts_once(world: World) -> None:
    order = await world.confirmed()
    for refund, amount in (("1", 500), ("2", 700), ("1", 500)):
        await world.hear(refunded(order, amount, refund))
    known = await world.read(order.id)
    assert known.refunded == Money(1_200, "EUR")
    assert steps(known)[-2:] == [("CONFIRMED", "REFUNDED")] * 2


async def test_a_refund_in_another_currency_is_refused(world: World) -> None:
    order = await world.confirmed()
    other = replace(order, total=Money(2_500, "USD"))
    with pytest.raises(ServiceError):
        await world.hear(refunded(other, 500))


async def test_an_event_for_an_unknown_order_fails_for_good(world: World) -> None:
    ghost = replace(await world.place(), id="ord_" + "f" * 32)
    for news in (reserved(ghost), rejected(ghost), captured(ghost), declined(ghost), refunded(ghost, 1)):
        with pytest.raises(ServiceError) as caught:
            await world.hear(news)
        assert caught.value.code is Code.NOT_FOUND


async def test_an_event_delivered_twice_takes_effect_once(world: World) -> None:
    order = await world.place()
    assert await world.hear(reserved(order), event_id="e1")
    once = await world.read(order.id)
    assert not await world.hear(reserved(order), event_id="e1")
    assert await world.read(order.id) == once


async def test_an_event_without_effect_writes_no_new_version(world: World) -> None:
    order = await world.place()
    await world.hear(reserved(order))
    version = (await world.read(order.id)).version
    await world.hear(reserved(order))
    assert (await world.read(order.id)).version == version


async def test_an_order_that_does_not_move_is_cancelled_by_the_sweep(world: World) -> None:
    placed, held = await world.place(), await world.place()
    await world.hear(reserved(held))
    paid = await world.confirmed()
    world.clock.advance(PATIENCE - timedelta(seconds=1))
    await world.sweep()
    assert not world.cancellations
    world.clock.advance(timedelta(seconds=1))
    await world.sweep()
    await world.sweep()
    assert [(await world.read(order.id)).status for order in (placed, held, paid)] == [
        Status.CANCELLED,
        Status.CANCELLED,
        Status.CONFIRMED,
    ]
    assert world.cancellations == ["TIMED_OUT", "TIMED_OUT"]


async def test_an_order_that_moved_gets_its_time_anew(world: World) -> None:
    order = await world.place()
    world.clock.advance(PATIENCE - timedelta(minutes=1))
    await world.hear(reserved(order))
    world.clock.advance(timedelta(minutes=2))
    await world.sweep()
    assert (await world.read(order.id)).status is Status.RESERVED


async def test_a_sweep_goes_through_more_than_a_page(world: World) -> None:
    for _ in range(230):
        await world.place()
    world.clock.advance(PATIENCE)
    assert await service.cancel_overdue(world.orders, world.clock, PATIENCE) == 230
    assert len(world.recorded(OrderCancelled)) == 230


async def test_a_deleted_account_leaves_no_name_behind(world: World) -> None:
    done = await world.confirmed()
    await service.ship(world.orders, world.clock, BOSS, done.id)
    cancelled = await world.place(wanted(key="k"))
    await service.cancel(world.orders, world.clock, ADA, cancelled.id, "")
    for _ in range(120):
        await world.place()
    bobs = await world.place(who=BOB)
    await world.hear(deleted(ADA))
    for data in [
        stored.data for stored in world.memory._entities.values() if bobs.id.encode() not in stored.data
    ]:
        assert b"Lovelace" not in data
        assert b"tok_ok" not in data
    assert not any(b"Lovelace" in (guard.answer or b"") for guard in world.memory._guards.values())
    assert (await world.read(bobs.id)).shipping_address is not None
    assert steps(await world.read(done.id))[-1] == ("SHIPPED", "ACCOUNT_DELETED")


async def test_a_deleted_accounts_orders_are_cancelled_unless_shipped(world: World) -> None:
    placed, paid, shipped = await world.place(), await world.confirmed(), await world.confirmed()
    await service.ship(world.orders, world.clock, BOSS, shipped.id)
    await world.hear(deleted(ADA))
    assert [(await world.read(order.id)).status for order in (placed, paid, shipped)] == [
        Status.CANCELLED,
        Status.CANCELLED,
        Status.SHIPPED,
    ]
    assert world.cancellations == ["ACCOUNT_DELETED"] * 2


async def test_an_erasure_that_breaks_off_is_done_again(world: World) -> None:
    first, second = await world.place(), await world.place()
    broken = replace(
        world.orders, store=FailingStore(world.memory, at_call=3)
    )  # the account is closed, one order done
    with pytest.raises(ServiceError):
        await service.erase_person(broken, world.clock, ADA.subject, mark("/users", "erase-1"))
    assert len(world.cancellations) == 1
    assert await world.hear(deleted(ADA), event_id="erase-1")
    assert not await world.hear(deleted(ADA), event_id="erase-1")
    for order in (first, second):
        assert (await world.read(order.id)).shipping_address is None
    assert len(world.cancellations) == 2
