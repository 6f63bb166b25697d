"""An order is charged once, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from events.catalog import Money, PaymentCaptured, PaymentDeclined, PaymentRefunded
from functions.payments.domain import PaymentStatus
from functions.payments.tests.till import ORDER, PAYER, PRICE, Till
from functions.runtime.errors import Code, ServiceError

PAYMENT = "pay_" + "a" * 32


async def test_an_order_whose_stock_is_reserved_is_charged() -> None:
    till = Till(lost_races=1)
    till.orders.place(ORDER)
    await till.reserve()
    payment = await till.payment()
    assert (payment.status, payment.captured, payment.user_id) == (PaymentStatus.CAPTURED, 5000, PAYER)
    assert till.events() == [PaymentCaptured(order_id=ORDER, payment_id=PAYMENT, amount=PRICE)]
    assert await till.net() == 5000


async def test_an_order_that_costs_nothing_is_paid_without_a_provider() -> None:
    till = Till(lost_races=1)
    till.orders.place(ORDER, "tok_declined", Money(0, "EUR"))
    await till.reserve()
    await till.reserve()
    payment = await till.payment()
    assert (payment.status, payment.captured) == (PaymentStatus.CAPTURED, 0)
    assert till.events() == [PaymentCaptured(order_id=ORDER, payment_id=PAYMENT, amount=Money(0, "EUR"))]
    assert await till.ledger() == []

    await till.cancel()
    await till.sweep()
    assert till.events(PaymentRefunded) == []
    assert await till.ledger() == []


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("tok_declined", "PAYMENT_DECLINED"),
        ("tok_insufficient_funds", "INSUFFICIENT_FUNDS"),
        ("a token nobody knows", "PAYMENT_DECLINED"),
    ],
)
async def test_a_refused_charge_is_told_with_its_reason(token: str, reason: str) -> None:
    till = Till()
    till.orders.place(ORDER, token)
    await till.reserve()
    payment = await till.payment()
    assert (payment.status, payment.reason, payment.captured) == (PaymentStatus.DECLINED, reason, 0)
    assert till.events() == [PaymentDeclined(order_id=ORDER, payment_id=PAYMENT, reason=reason)]
    assert await till.net() == 0


async def test_a_repeated_event_charges_nothing_more() -> None:
    till = Till()
    till.orders.place(ORDER)
    await till.reserve()
    await till.reserve()
    assert len(await till.ledger()) == 1
    assert len(till.events()) == 1


async def test_the_same_event_many_times_at_once_charges_once() -> None:
    till = Till()
    till.orders.place(ORDER, "tok_slow")
    await asyncio.gather(*(till.reserve() for _ in range(20)))
    assert await till.net() == 5000
    assert len(till.events(PaymentCaptured)) == 1


async def test_an_order_that_is_not_payable_any_more_is_not_charged() -> None:
    till = Till()
    till.orders.place(ORDER)
    till.orders.cancel(ORDER)
    await till.reserve()
    payment = await till.payment()
    assert (payment.status, payment.amount) == (PaymentStatus.VOIDED, PRICE)
    assert await till.ledger() == []
    assert till.events() == []


async def test_while_orders_does_not_answer_the_event_comes_again() -> None:
    till = Till()
    till.orders.place(ORDER)
    till.orders.down = True
    with pytest.raises(ServiceError) as raised:
        await till.reserve()
    assert raised.value.code is Code.UNAVAILABLE
    till.orders.down = False
    await till.reserve()
    assert (await till.payment()).status is PaymentStatus.CAPTURED


async def test_a_flaky_provider_fails_twice_and_then_charges_once() -> None:
    till = Till()
    till.orders.place(ORDER, "tok_flaky")
    for _ in range(2):
        with pytest.raises(ServiceError) as raised:
            await till.reserve()
        assert raised.value.reason == "PAYMENT_PROVIDER_UNAVAILABLE"
        assert (await till.payment()).pending
    await till.reserve()
    assert (await till.payment()).status is PaymentStatus.CAPTURED
    assert await till.net() == 5000


async def test_a_charge_whose_answer_was_lost_is_not_made_again() -> None:
    till = Till()
    till.orders.place(ORDER, "tok_timeout")
    with pytest.raises(ServiceError):
        await till.reserve()
    assert await till.net() == 5000
    await till.reserve()
    assert await till.net() == 5000
    assert (await till.payment()).status is PaymentStatus.CAPTURED
    assert len(till.events(PaymentCaptured)) == 1


async def test_the_sweep_charges_what_was_left_pending() -> None:
    till = Till()
    till.orders.place(ORDER)
    till.provider.faults = ["after"]
    with pytest.raises(ServiceError):
        await till.reserve()
    await till.sweep()
    assert (await till.payment()).status is PaymentStatus.CAPTURED
    assert await till.net() == 5000


async def test_the_sweep_lets_a_charge_in_progress_be() -> None:
    till = Till()
    till.orders.place(ORDER)
    till.provider.down = True
    with pytest.raises(ServiceError):
        await till.reserve()
    till.provider.down = False
    before = till.orders.asked
    await till.sweep(after=till.desk.settle_after / 2)
    assert till.orders.asked == before


async def test_the_sweep_survives_an_outage_and_takes_up_the_rest_later() -> None:
    till = Till()
    orders = [f"ord_{number:032x}" for number in range(3)]
    till.provider.down = True
    for order in orders:
        till.orders.place(order)
        with pytest.raises(ServiceError):
            await till.reserve(order)
    await till.sweep()
    till.provider.down = False
    await till.sweep()
    assert {(await till.payment(order)).status for order in orders} == {PaymentStatus.CAPTURED}
    assert await till.net() == 3 * 5000


async def test_the_sweep_voids_a_pending_payment_whose_order_was_cancelled_unheard() -> None:
    till = Till()
    till.orders.place(ORDER)
    till.provider.faults = ["before"]
    with pytest.raises(ServiceError):
        await till.reserve()
    till.orders.cancel(ORDER)
    await till.sweep()
    assert (await till.payment()).status is PaymentStatus.VOIDED
    assert await till.net() == 0


async def test_a_cancelled_order_is_never_charged_however_late_its_stock_is_reserved() -> None:
    till = Till()
    await till.cancel()
    till.orders.place(ORDER)  # even if orders were to say payable
    await till.reserve()
    assert (await till.payment()).status is PaymentStatus.VOIDED
    assert await till.ledger() == []


async def test_cancelling_a_paid_order_gives_all_of_it_back_once() -> None:
    till = Till(lost_races=1)
    till.orders.place(ORDER)
    await till.reserve()
    await till.cancel()
    await till.cancel()
    payment = await till.payment()
    assert (payment.status, payment.refunded, payment.refunding) == (PaymentStatus.REFUNDED, 5000, 0)
    assert await till.net() == 0
    (told,) = till.events(PaymentRefunded)
    assert isinstance(told, PaymentRefunded)
    assert (told.amount, told.refunded, told.user_id) == (PRICE, PRICE, PAYER)


async def test_cancelling_during_the_charge_leaves_no_money_behind() -> None:
    till = Till()
    till.orders.place(ORDER)
    till.provider.faults = ["after", "before"]  # the charge happens unheard; the first void is lost
    with pytest.raises(ServiceError):
        await till.reserve()
    with pytest.raises(ServiceError):
        await till.cancel()
    await till.cancel()
    payment = await till.payment()
    assert (payment.status, payment.captured, payment.refunded) == (PaymentStatus.REFUNDED, 5000, 5000)
    assert await till.net() == 0


async def test_a_charge_that_was_called_off_first_never_happens() -> None:
    till = Till()
    till.orders.place(ORDER)
    till.provider.faults = ["before"]
    with pytest.raises(ServiceError):
        await till.reserve()
    await till.cancel()
    await till.reserve()
    assert (await till.payment()).status is PaymentStatus.VOIDED
    assert await till.net() == 0


async def test_the_sweep_finishes_a_refund_that_the_provider_left_open() -> None:
    till = Till()
    till.orders.place(ORDER)
    await till.reserve()
    till.provider.faults = ["after"]
    with pytest.raises(ServiceError):
        await till.cancel()
    refund = await till.automatic_refund()
    assert refund is not None
    assert refund.status == "PENDING"
    await till.sweep()
    assert (await till.payment()).status is PaymentStatus.REFUNDED
    assert await till.net() == 0


async def test_an_order_that_cost_nothing_needs_no_refund() -> None:
    till = Till()
    till.orders.place(ORDER, amount=Money(0, "EUR"))
    await till.reserve()
    await till.cancel()
    assert (await till.payment()).status is PaymentStatus.CAPTURED
    assert await till.automatic_refund() is None


async def test_a_deleted_account_leaves_its_payments_but_not_its_name() -> None:
    till = Till()
    till.orders.place(ORDER)
    await till.reserve()
    await till.forget()
    await till.forget()
    payment = await till.payment()
    assert (payment.user_id, payment.status) == ("", PaymentStatus.CAPTURED)


async def test_late_events_do_not_bring_a_deleted_account_back() -> None:
    till = Till()
    await till.forget()
    till.orders.place(ORDER)
    await till.reserve()
    other = "ord_" + "c" * 32
    await till.cancel(other)
    assert (await till.payment()).user_id == ""
    assert (await till.payment(other)).user_id == ""


async def test_a_refund_to_a_deleted_account_is_told_with_an_id_that_is_nobodys() -> None:
    till = Till()
    till.orders.place(ORDER)
    await till.reserve()
    await till.forget()
    await till.cancel()
    (told,) = till.events(PaymentRefunded)
    assert isinstance(told, PaymentRefunded)
    assert told.user_id == "usr_" + "0" * 32


async def test_the_payment_token_is_kept_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    till = Till()
    token = "tok_" + "secret" * 3
    till.orders.place(ORDER, token)
    await till.reserve()
    kept = [till.store._entities, till.store._outbox, till.books._entities, till.store._records]
    assert token not in repr(kept) + caplog.text + repr(till.orders.instructions)


async def test_the_sweep_gives_money_back_and_calls_charges_off_before_it_charges_again() -> None:
    till = Till()
    refunded, called_off, charged = (f"ord_{digit * 32}" for digit in "123")
    for order in (refunded, called_off, charged):
        till.orders.place(order)
    await till.reserve(refunded)
    till.provider.down = True
    for order in (charged, called_off):
        with pytest.raises(ServiceError):
            await till.reserve(order)
    for order in (called_off, refunded):
        with pytest.raises(ServiceError):
            await till.cancel(order)
    till.provider.down = False
    till.provider.calls.clear()
    await till.sweep()
    assert till.provider.calls == ["refund", "void", "charge"]
    assert await till.net() == 5000
