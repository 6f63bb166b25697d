"""What events do to an order: in order, late, twice, and when they should never have come."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Literal

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
    decided,
    declined,
    deleted,
    disputed,
    refund_failed,
    refunded,
    rejected,
    reserved,
    wanted,
)
from functions.runtime.errors import Code, ServiceError
from functions.runtime.inbox import inbox_record

Outcome = Literal["WON", "LOST"]


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
    idempotency = await world.read(order.id)
    assert not await world.hear(reserved(order), event_id="e1")
    assert await world.read(order.id) == idempotency


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
    bobs = await world.place(caller=BOB)
    await world.hear(deleted(ADA))
    for data in [
        stored.data for stored in world.memory._entities.values() if bobs.id.encode() not in stored.data
    ]:
        assert b"Lovelace" not in data
        assert b"tok_ok" not in data
    assert not any(b"Lovelace" in (guard.answer or b"") for guard in world.memory._records.values())
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
        await service.erase_person(
            broken, world.clock, ADA.subject, inbox_record("/users", "erase-1", world.clock.now())
        )
    assert len(world.cancellations) == 1
    assert await world.hear(deleted(ADA), event_id="erase-1")
    assert not await world.hear(deleted(ADA), event_id="erase-1")
    for order in (first, second):
        assert (await world.read(order.id)).shipping_address is None
    assert len(world.cancellations) == 2


async def refused_to_ship(world: World, order: Order) -> ServiceError:
    with pytest.raises(ServiceError) as raised:
        await service.ship(world.orders, world.clock, BOSS, order.id)
    assert raised.value.code is Code.FAILED_PRECONDITION
    return raised.value


async def test_a_full_refund_before_shipping_cancels_the_order_so_that_its_stock_goes_back(
    world: World,
) -> None:
    order = await world.confirmed()
    await world.hear(refunded(order, order.total.amount))
    ended = await world.read(order.id)
    assert steps(ended)[-2:] == [("CONFIRMED", "REFUNDED"), ("CANCELLED", "REFUNDED")]
    (cancelled,) = world.recorded(OrderCancelled)
    assert cancelled == OrderCancelled(
        order_id=order.id, user_id=ADA.subject, reason="REFUNDED", money_returned=True
    )
    assert (await refused_to_ship(world, order)).reason == "ILLEGAL_TRANSITION"


async def test_an_order_that_was_refunded_in_part_may_be_shipped(world: World) -> None:
    order = await world.confirmed()
    await world.hear(refunded(order, order.total.amount - 1))
    assert (await service.ship(world.orders, world.clock, BOSS, order.id)).status is Status.SHIPPED


async def test_parts_that_make_the_whole_cancel_it_too_and_the_mail_promises_nothing_more(
    world: World,
) -> None:
    order = await world.confirmed()
    await world.hear(refunded(order, 1, "1"))
    assert world.cancellations == []
    await world.hear(refunded(order, order.total.amount - 1, "2"))
    assert world.cancellations == ["REFUNDED"]


async def test_a_full_refund_of_a_shipped_order_changes_nothing_but_its_timeline(world: World) -> None:
    order = await world.confirmed()
    await service.ship(world.orders, world.clock, BOSS, order.id)
    await world.hear(refunded(order, order.total.amount))
    assert steps(await world.read(order.id))[-1] == ("SHIPPED", "REFUNDED")
    assert (await service.deliver(world.orders, world.clock, BOSS, order.id)).status is Status.DELIVERED


@pytest.mark.parametrize("outcome", ["WON", "LOST"])
async def test_a_disputed_order_is_not_shipped_until_that_is_decided(world: World, outcome: Outcome) -> None:
    order = await world.confirmed()
    await world.hear(disputed(order))
    assert (await refused_to_ship(world, order)).reason == "ORDER_DISPUTED"
    await world.hear(decided(order, outcome))
    if outcome == "WON":
        assert (await service.ship(world.orders, world.clock, BOSS, order.id)).status is Status.SHIPPED
    else:
        assert world.cancellations == ["DISPUTE_LOST"]
    reasons = [reason for _, reason in steps(await world.read(order.id)) if reason]
    assert reasons[:2] == ["PAYMENT_DISPUTED", f"DISPUTE_{outcome}"]


async def test_a_part_that_is_lost_does_not_cancel_and_a_refund_that_failed_counts_no_more(
    world: World,
) -> None:
    order = await world.confirmed()
    await world.hear(disputed(order, 100))
    await world.hear(decided(order, "LOST", 100))
    await world.hear(refunded(order, order.total.amount - 101))
    await world.hear(refund_failed(order, order.total.amount - 101))
    await world.hear(refunded(order, order.total.amount - 101, "2"))
    assert (await world.read(order.id)).status is Status.CONFIRMED
    await world.hear(refunded(order, 1, "3"))
    assert world.cancellations == ["REFUNDED"]


async def test_a_customer_who_cancels_after_everything_went_back_is_promised_nothing(world: World) -> None:
    order = await world.place()
    await world.hear(reserved(order))
    await world.hear(disputed(order))
    await service.cancel(world.orders, world.clock, ADA, order.id, "")
    await world.hear(decided(order, "LOST"))
    (cancelled,) = world.recorded(OrderCancelled)
    assert isinstance(cancelled, OrderCancelled)
    assert not cancelled.money_returned  # it was not known then
    assert (await world.read(order.id)).returned
