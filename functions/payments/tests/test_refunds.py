"""Money goes back in parts or whole, never more than was charged."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from events.catalog import Money, PaymentRefunded
from functions.payments import refunds
from functions.payments.domain import PaymentStatus, Refund, RefundStatus
from functions.payments.tests.till import ORDER, PAYER, Till
from functions.runtime.currencies import PROVIDERS
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import Identity

PAYMENT = "pay_" + "a" * 32
ADMIN = Identity("usr_" + "d" * 32, frozenset({"customer", "admin"}))
OTHER_ADMIN = Identity("usr_" + "e" * 32, frozenset({"customer", "admin"}))
OWNER = Identity(PAYER, frozenset({"customer"}))
STRANGER = Identity("usr_" + "f" * 32, frozenset({"customer"}))


async def paid(lost_races: int = 0) -> Till:
    till = Till(lost_races)
    till.orders.place(ORDER)
    await till.reserve()
    return till


async def ask(
    till: Till, amount: int | None, key: str | None = None, caller: Identity = ADMIN, currency: str = "EUR"
) -> Refund:
    money = None if amount is None else Money(amount, currency)
    return await refunds.refund(PAYMENT, money, "", key, caller, till.desk)


async def refused(
    till: Till, amount: int | None, key: str | None = None, currency: str = "EUR"
) -> ServiceError:
    with pytest.raises(ServiceError) as raised:
        await ask(till, amount, key, currency=currency)
    return raised.value


async def test_parts_go_back_until_nothing_is_left() -> None:
    till = await paid(lost_races=1)
    first = await ask(till, 1500)
    assert (first.status, first.amount, first.reason) == (
        "SUCCEEDED",
        Money(1500, "EUR"),
        "REQUESTED_BY_MERCHANT",
    )
    assert (await till.payment()).status is PaymentStatus.PARTIALLY_REFUNDED
    rest = await ask(till, None)
    assert rest.amount == Money(3500, "EUR")
    assert (await till.payment()).status is PaymentStatus.REFUNDED
    told = [
        event.refunded.amount for event in till.events(PaymentRefunded) if isinstance(event, PaymentRefunded)
    ]
    assert told == [1500, 5000]
    assert await till.net() == 0


@pytest.mark.parametrize("amount", [5001, 10**12])
async def test_more_than_was_charged_is_refused(amount: int) -> None:
    till = await paid()
    error = await refused(till, amount)
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "REFUND_EXCEEDS_CAPTURED")
    assert await till.net() == 5000


async def test_nothing_is_left_of_what_went_back() -> None:
    till = await paid()
    await ask(till, None)
    assert (await refused(till, None)).reason == "REFUND_EXCEEDS_CAPTURED"
    assert (await refused(till, 1)).reason == "REFUND_EXCEEDS_CAPTURED"


async def test_many_refunds_at_once_never_exceed_the_charge() -> None:
    till = await paid()
    results = await asyncio.gather(*(ask(till, 1200) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(result, Refund) for result in results) == 4
    assert await till.net() == 200


async def test_pending_refunds_count_against_what_is_left() -> None:
    till = await paid()
    till.provider.down = True
    pending = await ask(till, 4000)
    assert pending.status is RefundStatus.PENDING
    assert (await refused(till, 1001)).reason == "REFUND_EXCEEDS_CAPTURED"
    till.provider.down = False
    await till.sweep()
    payment = await till.payment()
    assert (payment.refunded, payment.refunding) == (4000, 0)


async def test_a_refund_that_the_provider_refuses_may_be_asked_for_again() -> None:
    till = await paid()
    till.provider.refuses_refunds = True
    assert (await ask(till, None)).status is RefundStatus.FAILED
    assert till.events(PaymentRefunded) == []
    till.provider.refuses_refunds = False
    assert (await ask(till, None)).status is RefundStatus.SUCCEEDED


async def test_cancelling_gives_back_what_earlier_refunds_left() -> None:
    till = await paid()
    await ask(till, 1000)
    await till.cancel()
    refund = await till.automatic_refund()
    assert refund is not None
    assert (refund.amount, refund.reason) == (Money(4000, "EUR"), "ORDER_CANCELLED")
    assert await till.net() == 0


@pytest.mark.parametrize("token", ["tok_declined", "not reserved"])
async def test_what_was_not_charged_cannot_go_back(token: str) -> None:
    till = Till()
    till.orders.place(ORDER, token)
    if token == "not reserved":
        await till.cancel()
    else:
        await till.reserve()
    assert (await refused(till, None)).reason == "NOT_CAPTURED"
    assert (await refused(till, 100)).reason == "NOT_CAPTURED"


async def test_a_payment_that_does_not_exist_is_not_found() -> None:
    assert (await refused(Till(), 100)).reason == "PAYMENT_NOT_FOUND"


@pytest.mark.parametrize("amount", [0, -5])
async def test_an_amount_is_more_than_zero(amount: int) -> None:
    till = await paid()
    error = await refused(till, amount)
    assert error.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == ["amount.amount"]


async def test_a_refund_is_in_the_currency_of_the_charge() -> None:
    assert (await refused(await paid(), 100, currency="USD")).reason == "CURRENCY_MISMATCH"


async def test_the_same_key_gives_the_same_refund() -> None:
    till = await paid()
    first = await ask(till, 1000, "key")
    again = await ask(till, 1000, "key")
    assert (again.id, again.status) == (first.id, RefundStatus.SUCCEEDED)
    assert await till.net() == 4000


async def test_the_same_key_fifty_times_at_once_makes_one_refund() -> None:
    till = await paid()
    results = await asyncio.gather(*(ask(till, 1000, "key") for _ in range(50)), return_exceptions=True)
    errors = [result for result in results if isinstance(result, ServiceError)]
    assert {error.reason for error in errors} <= {"IDEMPOTENCY_KEY_IN_FLIGHT"}
    assert len({result.id for result in results if isinstance(result, Refund)}) == 1
    assert await till.net() == 4000


async def test_another_body_with_the_same_key_is_refused() -> None:
    till = await paid()
    await ask(till, 1000, "key")
    assert (await refused(till, 1001, "key")).reason == "IDEMPOTENCY_KEY_REUSED"
    assert (await refused(till, None, "key")).reason == "IDEMPOTENCY_KEY_REUSED"


async def test_keys_of_two_people_do_not_meet() -> None:
    till = await paid()
    await ask(till, 1000, "key", ADMIN)
    await ask(till, 2000, "key", OTHER_ADMIN)
    assert await till.net() == 2000


async def test_a_key_whose_refund_is_still_pending_is_in_flight_and_later_taken_up() -> None:
    till = await paid()
    till.provider.down = True
    first = await ask(till, 1000, "key")
    error = await refused(till, 1000, "key")
    assert (error.code, error.reason) == (Code.ABORTED, "IDEMPOTENCY_KEY_IN_FLIGHT")
    till.clock.advance(till.desk.settle_after)
    till.provider.down = False
    again = await ask(till, 1000, "key")
    assert (again.id, again.status) == (first.id, RefundStatus.SUCCEEDED)


@pytest.mark.parametrize("caller", [OWNER, STRANGER, Identity("orders", frozenset({"service"}))])
async def test_only_an_administrator_gives_money_back(caller: Identity) -> None:
    till = await paid()
    with pytest.raises(ServiceError) as raised:
        await ask(till, 100, caller=caller)
    assert raised.value.code is Code.PERMISSION_DENIED
    assert await till.net() == 5000


async def test_refunds_are_listed_oldest_first_page_by_page() -> None:
    till = await paid()
    made = []
    for _ in range(3):
        till.clock.advance(till.desk.settle_after)
        made.append((await ask(till, 100)).id)
    page = await refunds.refunds_of(PAYMENT, 2, "", OWNER, till.desk)
    rest = await refunds.refunds_of(PAYMENT, 2, page.next_cursor or "", ADMIN, till.desk)
    assert [refund.id for refund in page.items + rest.items] == made
    assert rest.next_cursor is None


async def test_a_stranger_does_not_learn_that_there_are_refunds() -> None:
    till = await paid()
    for caller, payment in ((STRANGER, PAYMENT), (OWNER, "pay_" + "0" * 32)):
        with pytest.raises(ServiceError) as raised:
            await refunds.refunds_of(payment, 0, "", caller, till.desk)
        assert raised.value.reason == "PAYMENT_NOT_FOUND"


async def test_an_amount_that_the_provider_cannot_give_back_is_refused_at_once() -> None:
    till = Till()
    till.orders.place(ORDER, amount=Money(5000, "KWD"))
    await till.reserve()
    till.desk = replace(till.desk, limits=PROVIDERS["stripe"])
    error = await refused(till, 1005, currency="KWD")
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "AMOUNT_NOT_CHARGEABLE")
    assert [violation.field for violation in error.violations] == ["amount.amount"]
    assert (await ask(till, 1010, currency="KWD")).status is RefundStatus.SUCCEEDED
