"""An order is charged once, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from events.catalog import Money, PaymentCaptured, PaymentDeclined, PaymentRefunded
from functions.payments.domain import PaymentStatus
from functions.payments.tests.shop import ORDER, PAYER, PRICE, SETTLE_AFTER, Shop
from functions.runtime.errors import Code, ServiceError

PAYMENT = "pay_" + "a" * 32


async def test_an_order_whose_stock_is_reserved_is_charged() -> None:
    shop = Shop(lost_races=1)
    shop.orders.place(ORDER)
    await shop.reserve()
    payment = await shop.payment()
    assert (payment.status, payment.captured, payment.user_id) == (PaymentStatus.CAPTURED, 5000, PAYER)
    assert shop.events() == [PaymentCaptured(order_id=ORDER, payment_id=PAYMENT, amount=PRICE)]
    assert await shop.net() == 5000


async def test_an_order_that_costs_nothing_is_paid_without_a_provider() -> None:
    shop = Shop(lost_races=1)
    shop.orders.place(ORDER, "tok_declined", Money(0, "EUR"))
    await shop.reserve()
    await shop.reserve()
    payment = await shop.payment()
    assert (payment.status, payment.captured) == (PaymentStatus.CAPTURED, 0)
    assert shop.events() == [PaymentCaptured(order_id=ORDER, payment_id=PAYMENT, amount=Money(0, "EUR"))]
    assert await shop.ledger() == []

    await shop.cancel()
    await shop.sweep()
    assert shop.events(PaymentRefunded) == []
    assert await shop.ledger() == []


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("tok_declined", "PAYMENT_DECLINED"),
        ("tok_insufficient_funds", "INSUFFICIENT_FUNDS"),
        ("a token nobody knows", "PAYMENT_DECLINED"),
    ],
)
async def test_a_declined_charge_is_published_with_its_reason(token: str, reason: str) -> None:
    shop = Shop()
    shop.orders.place(ORDER, token)
    await shop.reserve()
    payment = await shop.payment()
    assert (payment.status, payment.reason, payment.captured) == (PaymentStatus.DECLINED, reason, 0)
    assert shop.events() == [PaymentDeclined(order_id=ORDER, payment_id=PAYMENT, reason=reason)]
    assert await shop.net() == 0


async def test_a_repeated_event_charges_nothing_more() -> None:
    shop = Shop()
    shop.orders.place(ORDER)
    await shop.reserve()
    await shop.reserve()
    assert len(await shop.ledger()) == 1
    assert len(shop.events()) == 1


async def test_the_same_event_many_times_at_once_charges_once() -> None:
    shop = Shop()
    shop.orders.place(ORDER, "tok_slow")
    await asyncio.gather(*(shop.reserve() for _ in range(20)))
    assert await shop.net() == 5000
    assert len(shop.events(PaymentCaptured)) == 1


async def test_an_order_that_is_not_payable_any_more_is_not_charged() -> None:
    shop = Shop()
    shop.orders.place(ORDER)
    shop.orders.cancel(ORDER)
    await shop.reserve()
    payment = await shop.payment()
    assert (payment.status, payment.amount) == (PaymentStatus.VOIDED, PRICE)
    assert await shop.ledger() == []
    assert shop.events() == []


async def test_the_event_is_redelivered_while_orders_does_not_answer() -> None:
    shop = Shop()
    shop.orders.place(ORDER)
    shop.orders.down = True
    with pytest.raises(ServiceError) as raised:
        await shop.reserve()
    assert raised.value.code is Code.UNAVAILABLE
    shop.orders.down = False
    await shop.reserve()
    assert (await shop.payment()).status is PaymentStatus.CAPTURED


async def test_a_flaky_provider_fails_twice_and_then_charges_once() -> None:
    shop = Shop()
    shop.orders.place(ORDER, "tok_flaky")
    for _ in range(2):
        with pytest.raises(ServiceError) as raised:
            await shop.reserve()
        assert raised.value.reason == "PAYMENT_PROVIDER_UNAVAILABLE"
        assert (await shop.payment()).pending
    await shop.reserve()
    assert (await shop.payment()).status is PaymentStatus.CAPTURED
    assert await shop.net() == 5000


async def test_a_charge_whose_answer_was_lost_is_not_made_again() -> None:
    shop = Shop()
    shop.orders.place(ORDER, "tok_timeout")
    with pytest.raises(ServiceError):
        await shop.reserve()
    assert await shop.net() == 5000
    await shop.reserve()
    assert await shop.net() == 5000
    assert (await shop.payment()).status is PaymentStatus.CAPTURED
    assert len(shop.events(PaymentCaptured)) == 1


async def test_the_sweep_charges_what_was_left_pending() -> None:
    shop = Shop()
    shop.orders.place(ORDER)
    shop.provider.faults = ["after"]
    with pytest.raises(ServiceError):
        await shop.reserve()
    await shop.sweep()
    assert (await shop.payment()).status is PaymentStatus.CAPTURED
    assert await shop.net() == 5000


async def test_the_sweep_leaves_a_charge_in_progress_alone() -> None:
    shop = Shop()
    shop.orders.place(ORDER)
    shop.provider.down = True
    with pytest.raises(ServiceError):
        await shop.reserve()
    shop.provider.down = False
    before = shop.orders.asked
    await shop.sweep(after=SETTLE_AFTER / 2)
    assert shop.orders.asked == before


async def test_the_sweep_survives_an_outage_and_retries_later() -> None:
    shop = Shop()
    orders = [f"ord_{number:032x}" for number in range(3)]
    shop.provider.down = True
    for order in orders:
        shop.orders.place(order)
        with pytest.raises(ServiceError):
            await shop.reserve(order)
    await shop.sweep()
    shop.provider.down = False
    await shop.sweep()
    assert {(await shop.payment(order)).status for order in orders} == {PaymentStatus.CAPTURED}
    assert await shop.net() == 3 * 5000


async def test_the_sweep_voids_a_pending_payment_before_the_cancellation_event_arrives() -> None:
    shop = Shop()
    shop.orders.place(ORDER)
    shop.provider.faults = ["before"]
    with pytest.raises(ServiceError):
        await shop.reserve()
    shop.orders.cancel(ORDER)
    await shop.sweep()
    assert (await shop.payment()).status is PaymentStatus.VOIDED
    assert await shop.net() == 0


async def test_a_cancelled_order_is_never_charged_however_late_its_stock_is_reserved() -> None:
    shop = Shop()
    await shop.cancel()
    shop.orders.place(ORDER)  # even if orders were to say payable
    await shop.reserve()
    assert (await shop.payment()).status is PaymentStatus.VOIDED
    assert await shop.ledger() == []


async def test_cancelling_a_paid_order_refunds_all_of_it_once() -> None:
    shop = Shop(lost_races=1)
    shop.orders.place(ORDER)
    await shop.reserve()
    await shop.cancel()
    await shop.cancel()
    payment = await shop.payment()
    assert (payment.status, payment.refunded, payment.refunding) == (PaymentStatus.REFUNDED, 5000, 0)
    assert await shop.net() == 0
    (told,) = shop.events(PaymentRefunded)
    assert isinstance(told, PaymentRefunded)
    assert (told.amount, told.refunded, told.user_id) == (PRICE, PRICE, PAYER)


async def test_cancelling_during_the_charge_refunds_it() -> None:
    shop = Shop()
    shop.orders.place(ORDER)
    shop.provider.faults = ["after", "before"]  # the charge happens unheard; the first void is lost
    with pytest.raises(ServiceError):
        await shop.reserve()
    with pytest.raises(ServiceError):
        await shop.cancel()
    await shop.cancel()
    payment = await shop.payment()
    assert (payment.status, payment.captured, payment.refunded) == (PaymentStatus.REFUNDED, 5000, 5000)
    assert await shop.net() == 0


async def test_a_charge_that_was_voided_first_never_happens() -> None:
    shop = Shop()
    shop.orders.place(ORDER)
    shop.provider.faults = ["before"]
    with pytest.raises(ServiceError):
        await shop.reserve()
    await shop.cancel()
    await shop.reserve()
    assert (await shop.payment()).status is PaymentStatus.VOIDED
    assert await shop.net() == 0


async def test_the_sweep_finishes_a_refund_that_the_provider_left_open() -> None:
    shop = Shop()
    shop.orders.place(ORDER)
    await shop.reserve()
    shop.provider.faults = ["after"]
    with pytest.raises(ServiceError):
        await shop.cancel()
    refund = await shop.automatic_refund()
    assert refund is not None
    assert refund.status == "PENDING"
    await shop.sweep()
    assert (await shop.payment()).status is PaymentStatus.REFUNDED
    assert await shop.net() == 0


async def test_an_order_that_cost_nothing_needs_no_refund() -> None:
    shop = Shop()
    shop.orders.place(ORDER, amount=Money(0, "EUR"))
    await shop.reserve()
    await shop.cancel()
    assert (await shop.payment()).status is PaymentStatus.CAPTURED
    assert await shop.automatic_refund() is None


async def test_deleting_an_account_keeps_its_payments_without_the_user_id() -> None:
    shop = Shop()
    shop.orders.place(ORDER)
    await shop.reserve()
    await shop.forget()
    await shop.forget()
    payment = await shop.payment()
    assert (payment.user_id, payment.status) == ("", PaymentStatus.CAPTURED)


async def test_late_events_do_not_bring_a_deleted_account_back() -> None:
    shop = Shop()
    await shop.forget()
    shop.orders.place(ORDER)
    await shop.reserve()
    other = "ord_" + "c" * 32
    await shop.cancel(other)
    assert (await shop.payment()).user_id == ""
    assert (await shop.payment(other)).user_id == ""


async def test_a_refund_to_a_deleted_account_is_published_with_the_id_of_erased_users() -> None:
    shop = Shop()
    shop.orders.place(ORDER)
    await shop.reserve()
    await shop.forget()
    await shop.cancel()
    (told,) = shop.events(PaymentRefunded)
    assert isinstance(told, PaymentRefunded)
    assert told.user_id == "usr_" + "0" * 32


async def test_the_payment_token_is_stored_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    shop = Shop()
    token = "tok_" + "secret" * 3
    shop.orders.place(ORDER, token)
    await shop.reserve()
    kept = [shop.store._entities, shop.store._outbox, shop.ledger_store._entities, shop.store._records]
    assert token not in repr(kept) + caplog.text + repr(shop.orders.instructions)


async def test_the_sweep_refunds_and_voids_before_it_charges() -> None:
    shop = Shop()
    refunded, called_off, charged = (f"ord_{digit * 32}" for digit in "123")
    for order in (refunded, called_off, charged):
        shop.orders.place(order)
    await shop.reserve(refunded)
    shop.provider.down = True
    for order in (charged, called_off):
        with pytest.raises(ServiceError):
            await shop.reserve(order)
    for order in (called_off, refunded):
        with pytest.raises(ServiceError):
            await shop.cancel(order)
    shop.provider.down = False
    shop.provider.calls.clear()
    await shop.sweep()
    assert shop.provider.calls == ["refund", "void", "charge"]
    assert await shop.net() == 5000
