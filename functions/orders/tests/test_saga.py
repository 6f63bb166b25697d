"""The effect of events on an order: in order, late, repeated, and in states that do not expect them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Literal

import pytest

from events.catalog import Money, OrderCancelled, Payload, subscriptions_of
from functions.orders.domain import Order, Status
from functions.orders.service import CancelOrder
from functions.orders.subscriptions import subscriptions
from functions.orders.tests.shop import (
    ADA,
    ADMINISTRATOR,
    BOB,
    ORDER_TIMEOUT,
    FailingStore,
    Shop,
    captured,
    decided,
    declined,
    deleted,
    disputed,
    place_order,
    refund_failed,
    refunded,
    rejected,
    reserved,
)
from functions.runtime.errors import Code, ServiceError
from functions.runtime.inbox import inbox_record

Outcome = Literal["WON", "LOST"]


def steps(order: Order) -> list[tuple[str, str]]:
    return [(entry.status.value, entry.reason) for entry in order.timeline]


async def test_there_is_a_handler_for_every_event_that_orders_subscribes_to(shop: Shop) -> None:
    assert {payload.TYPE for payload in subscriptions(shop.orders)} == subscriptions_of("orders")


async def test_stock_and_payment_make_a_confirmed_order(shop: Shop) -> None:
    order = await shop.place()
    await shop.receive(reserved(order))
    assert (await shop.read(order.id)).status is Status.RESERVED
    shop.clock.advance(timedelta(seconds=2))
    await shop.receive(captured(order))
    confirmed = await shop.read(order.id)
    assert steps(confirmed) == [("PLACED", ""), ("RESERVED", ""), ("CONFIRMED", "")]
    assert confirmed.timeline[-1].at == order.created_at + timedelta(seconds=2)
    assert confirmed.payment_token == ""
    assert shop.confirmations == 1


async def test_a_payment_that_overtakes_the_reservation_implies_it(shop: Shop) -> None:
    order = await shop.place()
    await shop.receive(captured(order))
    confirmed = await shop.read(order.id)
    assert steps(confirmed) == [("PLACED", ""), ("RESERVED", ""), ("CONFIRMED", "")]
    await shop.receive(reserved(order))
    assert await shop.read(order.id) == confirmed


@pytest.mark.parametrize("reason", ["OUT_OF_STOCK", "PRODUCT_UNAVAILABLE"])
async def test_without_stock_an_order_is_cancelled(shop: Shop, reason: str) -> None:
    order = await shop.place()
    await shop.receive(rejected(order, reason))
    cancelled = await shop.read(order.id)
    assert steps(cancelled) == [("PLACED", ""), ("CANCELLED", reason)]
    assert cancelled.payment_token == ""
    assert shop.cancellations == [reason]


@pytest.mark.parametrize("reason", ["PAYMENT_DECLINED", "INSUFFICIENT_FUNDS"])
async def test_without_money_an_order_is_cancelled(shop: Shop, reason: str) -> None:
    order = await shop.place()
    await shop.receive(reserved(order))
    await shop.receive(declined(order, reason))
    cancelled = await shop.read(order.id)
    assert (cancelled.status, cancelled.cancel_reason, cancelled.payment_token) == (
        Status.CANCELLED,
        reason,
        "",
    )
    assert shop.cancellations == [reason]


@pytest.mark.parametrize("paid", [False, True])
async def test_an_expired_reservation_cancels_even_a_paid_order(shop: Shop, paid: bool) -> None:
    order = await shop.place()
    await shop.receive(reserved(order))
    if paid:
        await shop.receive(captured(order))
    await shop.receive(rejected(order, "RESERVATION_EXPIRED"))
    assert (await shop.read(order.id)).status is Status.CANCELLED
    assert shop.cancellations == ["RESERVATION_EXPIRED"]


async def test_stock_lost_after_shipping_is_only_noted_and_only_once(shop: Shop) -> None:
    order = await shop.confirmed()
    await shop.orders.ship(order.id, ADMINISTRATOR)
    for _ in range(2):
        await shop.receive(rejected(order, "RESERVATION_EXPIRED"))
    shipped = await shop.read(order.id)
    assert steps(shipped)[-2:] == [("SHIPPED", ""), ("SHIPPED", "STOCK_LOST_AFTER_SHIPPING")]
    assert not shop.cancellations


async def test_a_payment_for_a_cancelled_order_is_only_noted_and_only_once(shop: Shop) -> None:
    order = await shop.place()
    await shop.orders.cancel(CancelOrder(order.id), ADA)
    for _ in range(2):
        await shop.receive(captured(order))
    cancelled = await shop.read(order.id)
    assert steps(cancelled)[1:] == [
        ("CANCELLED", "CUSTOMER_REQUEST"),
        ("CANCELLED", "PAID_AFTER_CANCELLATION"),
    ]
    assert shop.confirmations == 0


async def test_an_old_payment_is_no_news_for_an_order_cancelled_after_it(shop: Shop) -> None:
    order = await shop.confirmed()
    cancelled = await shop.orders.cancel(CancelOrder(order.id), ADA)
    await shop.receive(captured(order))
    assert await shop.read(order.id) == cancelled


async def test_late_stock_for_a_cancelled_order_changes_nothing(shop: Shop) -> None:
    order = await shop.place()
    cancelled = await shop.orders.cancel(CancelOrder(order.id), ADA)
    for event in (reserved(order), rejected(order), declined(order)):
        await shop.receive(event)
    assert await shop.read(order.id) == cancelled


async def test_another_amount_than_the_total_is_refused_for_good(shop: Shop) -> None:
    order = await shop.place()
    payment = captured(order)
    for amount in (Money(1, "EUR"), Money(payment.amount.amount, "USD")):
        with pytest.raises(ServiceError) as caught:
            await shop.receive(_with_amount(payment, amount), event_id="e1")
        assert caught.value.code is Code.FAILED_PRECONDITION
    assert await shop.receive(payment, event_id="e1")  # a failed event left no inbox mark


def _with_amount(payment: Payload, amount: Money) -> Payload:
    fields = {name: getattr(payment, name) for name in payment.__struct_fields__} | {"amount": amount}
    return type(payment)(**fields)


async def test_refunds_add_up_and_each_counts_once(shop: Shop) -> None:
    order = await shop.confirmed()
    for refund, amount in (("1", 500), ("2", 700), ("1", 500)):
        await shop.receive(refunded(order, amount, refund))
    known = await shop.read(order.id)
    assert known.refunded == Money(1_200, "EUR")
    assert steps(known)[-2:] == [("CONFIRMED", "REFUNDED")] * 2


async def test_a_refund_in_another_currency_is_refused(shop: Shop) -> None:
    order = await shop.confirmed()
    other = replace(order, total=Money(2_500, "USD"))
    with pytest.raises(ServiceError):
        await shop.receive(refunded(other, 500))


async def test_an_event_for_an_unknown_order_fails_for_good(shop: Shop) -> None:
    ghost = replace(await shop.place(), id="ord_" + "f" * 32)
    for event in (reserved(ghost), rejected(ghost), captured(ghost), declined(ghost), refunded(ghost, 1)):
        with pytest.raises(ServiceError) as caught:
            await shop.receive(event)
        assert caught.value.code is Code.NOT_FOUND


async def test_an_event_delivered_twice_takes_effect_once(shop: Shop) -> None:
    order = await shop.place()
    assert await shop.receive(reserved(order), event_id="e1")
    idempotency = await shop.read(order.id)
    assert not await shop.receive(reserved(order), event_id="e1")
    assert await shop.read(order.id) == idempotency


async def test_an_event_without_effect_writes_no_new_version(shop: Shop) -> None:
    order = await shop.place()
    await shop.receive(reserved(order))
    version = (await shop.read(order.id)).version
    await shop.receive(reserved(order))
    assert (await shop.read(order.id)).version == version


async def test_an_order_that_does_not_move_is_cancelled_by_the_sweep(shop: Shop) -> None:
    placed, held = await shop.place(), await shop.place()
    await shop.receive(reserved(held))
    paid = await shop.confirmed()
    shop.clock.advance(ORDER_TIMEOUT - timedelta(seconds=1))
    await shop.sweep()
    assert not shop.cancellations
    shop.clock.advance(timedelta(seconds=1))
    await shop.sweep()
    await shop.sweep()
    assert [(await shop.read(order.id)).status for order in (placed, held, paid)] == [
        Status.CANCELLED,
        Status.CANCELLED,
        Status.CONFIRMED,
    ]
    assert shop.cancellations == ["TIMED_OUT", "TIMED_OUT"]


async def test_an_order_that_moved_gets_its_time_anew(shop: Shop) -> None:
    order = await shop.place()
    shop.clock.advance(ORDER_TIMEOUT - timedelta(minutes=1))
    await shop.receive(reserved(order))
    shop.clock.advance(timedelta(minutes=2))
    await shop.sweep()
    assert (await shop.read(order.id)).status is Status.RESERVED


async def test_a_sweep_goes_through_more_than_a_page(shop: Shop) -> None:
    for _ in range(230):
        await shop.place()
    shop.clock.advance(ORDER_TIMEOUT)
    await shop.sweep()
    assert len(shop.recorded(OrderCancelled)) == 230


async def test_a_deleted_account_leaves_no_name_behind(shop: Shop) -> None:
    done = await shop.confirmed()
    await shop.orders.ship(done.id, ADMINISTRATOR)
    cancelled = await shop.place(place_order(key="k"))
    await shop.orders.cancel(CancelOrder(cancelled.id), ADA)
    for _ in range(120):
        await shop.place()
    bobs = await shop.place(caller=BOB)
    await shop.receive(deleted(ADA))
    for data in [stored.data for stored in shop.memory._entities.values() if bobs.id.encode() not in stored.data]:
        assert b"Lovelace" not in data
        assert b"tok_ok" not in data
    assert not any(b"Lovelace" in (guard.answer or b"") for guard in shop.memory._records.values())
    assert (await shop.read(bobs.id)).shipping_address is not None
    assert steps(await shop.read(done.id))[-1] == ("SHIPPED", "ACCOUNT_DELETED")


async def test_a_deleted_accounts_orders_are_cancelled_unless_shipped(shop: Shop) -> None:
    placed, paid, shipped = await shop.place(), await shop.confirmed(), await shop.confirmed()
    await shop.orders.ship(shipped.id, ADMINISTRATOR)
    await shop.receive(deleted(ADA))
    assert [(await shop.read(order.id)).status for order in (placed, paid, shipped)] == [
        Status.CANCELLED,
        Status.CANCELLED,
        Status.SHIPPED,
    ]
    assert shop.cancellations == ["ACCOUNT_DELETED"] * 2


async def test_an_erasure_that_breaks_off_is_done_again(shop: Shop) -> None:
    first, second = await shop.place(), await shop.place()
    interrupted = shop.compose(store=FailingStore(shop.memory, at_call=3))  # after the account and one order
    with pytest.raises(ServiceError):
        await interrupted.on_user_deleted(deleted(ADA), inbox_record("/users", "erase-1", shop.clock.now()))
    assert len(shop.cancellations) == 1
    assert await shop.receive(deleted(ADA), event_id="erase-1")
    assert not await shop.receive(deleted(ADA), event_id="erase-1")
    for order in (first, second):
        assert (await shop.read(order.id)).shipping_address is None
    assert len(shop.cancellations) == 2


async def refused_to_ship(shop: Shop, order: Order) -> ServiceError:
    with pytest.raises(ServiceError) as raised:
        await shop.orders.ship(order.id, ADMINISTRATOR)
    assert raised.value.code is Code.FAILED_PRECONDITION
    return raised.value


async def test_a_full_refund_before_shipping_cancels_the_order_so_that_its_stock_goes_back(
    shop: Shop,
) -> None:
    order = await shop.confirmed()
    await shop.receive(refunded(order, order.total.amount))
    ended = await shop.read(order.id)
    assert steps(ended)[-2:] == [("CONFIRMED", "REFUNDED"), ("CANCELLED", "REFUNDED")]
    (cancelled,) = shop.recorded(OrderCancelled)
    assert cancelled == OrderCancelled(order_id=order.id, user_id=ADA.subject, reason="REFUNDED", money_returned=True)
    assert (await refused_to_ship(shop, order)).reason == "ILLEGAL_TRANSITION"


async def test_an_order_that_was_refunded_in_part_may_be_shipped(shop: Shop) -> None:
    order = await shop.confirmed()
    await shop.receive(refunded(order, order.total.amount - 1))
    assert (await shop.orders.ship(order.id, ADMINISTRATOR)).status is Status.SHIPPED


async def test_parts_that_make_the_whole_cancel_it_too_and_the_mail_promises_nothing_more(
    shop: Shop,
) -> None:
    order = await shop.confirmed()
    await shop.receive(refunded(order, 1, "1"))
    assert shop.cancellations == []
    await shop.receive(refunded(order, order.total.amount - 1, "2"))
    assert shop.cancellations == ["REFUNDED"]


async def test_a_full_refund_of_a_shipped_order_changes_nothing_but_its_timeline(shop: Shop) -> None:
    order = await shop.confirmed()
    await shop.orders.ship(order.id, ADMINISTRATOR)
    await shop.receive(refunded(order, order.total.amount))
    assert steps(await shop.read(order.id))[-1] == ("SHIPPED", "REFUNDED")
    assert (await shop.orders.deliver(order.id, ADMINISTRATOR)).status is Status.DELIVERED


@pytest.mark.parametrize("outcome", ["WON", "LOST"])
async def test_a_disputed_order_is_not_shipped_until_that_is_decided(shop: Shop, outcome: Outcome) -> None:
    order = await shop.confirmed()
    await shop.receive(disputed(order))
    assert (await refused_to_ship(shop, order)).reason == "ORDER_DISPUTED"
    await shop.receive(decided(order, outcome))
    if outcome == "WON":
        assert (await shop.orders.ship(order.id, ADMINISTRATOR)).status is Status.SHIPPED
    else:
        assert shop.cancellations == ["DISPUTE_LOST"]
    reasons = [reason for _, reason in steps(await shop.read(order.id)) if reason]
    assert reasons[:2] == ["PAYMENT_DISPUTED", f"DISPUTE_{outcome}"]


async def test_a_part_that_is_lost_does_not_cancel_and_a_refund_that_failed_counts_no_more(
    shop: Shop,
) -> None:
    order = await shop.confirmed()
    await shop.receive(disputed(order, 100))
    await shop.receive(decided(order, "LOST", 100))
    await shop.receive(refunded(order, order.total.amount - 101))
    await shop.receive(refund_failed(order, order.total.amount - 101))
    await shop.receive(refunded(order, order.total.amount - 101, "2"))
    assert (await shop.read(order.id)).status is Status.CONFIRMED
    await shop.receive(refunded(order, 1, "3"))
    assert shop.cancellations == ["REFUNDED"]


async def test_a_customer_who_cancels_after_everything_went_back_is_promised_nothing(shop: Shop) -> None:
    order = await shop.place()
    await shop.receive(reserved(order))
    await shop.receive(disputed(order))
    await shop.orders.cancel(CancelOrder(order.id), ADA)
    await shop.receive(decided(order, "LOST"))
    (cancelled,) = shop.recorded(OrderCancelled)
    assert isinstance(cancelled, OrderCancelled)
    assert not cancelled.money_returned  # it was not known then
    assert (await shop.read(order.id)).returned
