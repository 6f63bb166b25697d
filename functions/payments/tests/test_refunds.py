"""A payment is refunded in parts or in full, never more than was charged."""

from __future__ import annotations

import asyncio

import pytest

from events.catalog import Money, PaymentRefunded
from functions.payments.domain import PaymentStatus, Refund, RefundStatus
from functions.payments.refunds import ListRefunds, RefundPayment
from functions.payments.tests.shop import ORDER, PAYER, SETTLE_AFTER, Shop
from functions.runtime.currencies import PROVIDERS
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import Identity

PAYMENT = "pay_" + "a" * 32
ADMIN = Identity("usr_" + "d" * 32, frozenset({"customer", "admin"}))
OTHER_ADMIN = Identity("usr_" + "e" * 32, frozenset({"customer", "admin"}))
OWNER = Identity(PAYER, frozenset({"customer"}))
STRANGER = Identity("usr_" + "f" * 32, frozenset({"customer"}))


async def paid(lost_races: int = 0) -> Shop:
    shop = Shop(lost_races)
    shop.orders.place(ORDER)
    await shop.reserve()
    return shop


async def ask(
    shop: Shop, amount: int | None, key: str | None = None, caller: Identity = ADMIN, currency: str = "EUR"
) -> Refund:
    money = None if amount is None else Money(amount, currency)
    return await shop.refunds.refund(RefundPayment(PAYMENT, money, idempotency_key=key), caller)


async def refused(shop: Shop, amount: int | None, key: str | None = None, currency: str = "EUR") -> ServiceError:
    with pytest.raises(ServiceError) as raised:
        await ask(shop, amount, key, currency=currency)
    return raised.value


async def test_a_payment_is_refunded_in_parts_until_nothing_is_left() -> None:
    shop = await paid(lost_races=1)
    first = await ask(shop, 1500)
    assert (first.status, first.amount, first.reason) == (
        "SUCCEEDED",
        Money(1500, "EUR"),
        "REQUESTED_BY_MERCHANT",
    )
    assert (await shop.payment()).status is PaymentStatus.PARTIALLY_REFUNDED
    rest = await ask(shop, None)
    assert rest.amount == Money(3500, "EUR")
    assert (await shop.payment()).status is PaymentStatus.REFUNDED
    told = [event.refunded.amount for event in shop.events(PaymentRefunded) if isinstance(event, PaymentRefunded)]
    assert told == [1500, 5000]
    assert await shop.net() == 0


@pytest.mark.parametrize("amount", [5001, 10**12])
async def test_more_than_was_charged_is_refused(amount: int) -> None:
    shop = await paid()
    error = await refused(shop, amount)
    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "REFUND_EXCEEDS_CAPTURED")
    assert await shop.net() == 5000


async def test_after_a_full_refund_nothing_can_be_refunded() -> None:
    shop = await paid()
    await ask(shop, None)
    assert (await refused(shop, None)).reason == "REFUND_EXCEEDS_CAPTURED"
    assert (await refused(shop, 1)).reason == "REFUND_EXCEEDS_CAPTURED"


async def test_many_refunds_at_once_never_exceed_the_charge() -> None:
    shop = await paid()
    results = await asyncio.gather(*(ask(shop, 1200) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(result, Refund) for result in results) == 4
    assert await shop.net() == 200


async def test_pending_refunds_count_against_what_is_left() -> None:
    shop = await paid()
    shop.provider.down = True
    pending = await ask(shop, 4000)
    assert pending.status is RefundStatus.PENDING
    assert (await refused(shop, 1001)).reason == "REFUND_EXCEEDS_CAPTURED"
    shop.provider.down = False
    await shop.sweep()
    payment = await shop.payment()
    assert (payment.refunded, payment.refunding) == (4000, 0)


async def test_a_refund_that_the_provider_refuses_may_be_asked_for_again() -> None:
    shop = await paid()
    shop.provider.refuses_refunds = True
    assert (await ask(shop, None)).status is RefundStatus.FAILED
    assert shop.events(PaymentRefunded) == []
    shop.provider.refuses_refunds = False
    assert (await ask(shop, None)).status is RefundStatus.SUCCEEDED


async def test_cancelling_refunds_what_earlier_refunds_left() -> None:
    shop = await paid()
    await ask(shop, 1000)
    await shop.cancel()
    refund = await shop.automatic_refund()
    assert refund is not None
    assert (refund.amount, refund.reason) == (Money(4000, "EUR"), "ORDER_CANCELLED")
    assert await shop.net() == 0


@pytest.mark.parametrize("token", ["tok_declined", "not reserved"])
async def test_a_payment_that_was_not_captured_cannot_be_refunded(token: str) -> None:
    shop = Shop()
    shop.orders.place(ORDER, token)
    if token == "not reserved":
        await shop.cancel()
    else:
        await shop.reserve()
    assert (await refused(shop, None)).reason == "NOT_CAPTURED"
    assert (await refused(shop, 100)).reason == "NOT_CAPTURED"


async def test_a_payment_that_does_not_exist_is_not_found() -> None:
    assert (await refused(Shop(), 100)).reason == "PAYMENT_NOT_FOUND"


@pytest.mark.parametrize("amount", [0, -5])
async def test_an_amount_is_more_than_zero(amount: int) -> None:
    shop = await paid()
    error = await refused(shop, amount)
    assert error.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == ["amount.amount"]


async def test_a_refund_is_in_the_currency_of_the_charge() -> None:
    assert (await refused(await paid(), 100, currency="USD")).reason == "CURRENCY_MISMATCH"


async def test_the_same_key_gives_the_same_refund() -> None:
    shop = await paid()
    first = await ask(shop, 1000, "key")
    again = await ask(shop, 1000, "key")
    assert (again.id, again.status) == (first.id, RefundStatus.SUCCEEDED)
    assert await shop.net() == 4000


async def test_the_same_key_fifty_times_at_once_makes_one_refund() -> None:
    shop = await paid()
    results = await asyncio.gather(*(ask(shop, 1000, "key") for _ in range(50)), return_exceptions=True)
    errors = [result for result in results if isinstance(result, ServiceError)]
    assert {error.reason for error in errors} <= {"IDEMPOTENCY_KEY_IN_FLIGHT"}
    assert len({result.id for result in results if isinstance(result, Refund)}) == 1
    assert await shop.net() == 4000


async def test_another_body_with_the_same_key_is_refused() -> None:
    shop = await paid()
    await ask(shop, 1000, "key")
    assert (await refused(shop, 1001, "key")).reason == "IDEMPOTENCY_KEY_REUSED"
    assert (await refused(shop, None, "key")).reason == "IDEMPOTENCY_KEY_REUSED"


async def test_idempotency_keys_of_two_administrators_are_separate() -> None:
    shop = await paid()
    await ask(shop, 1000, "key", ADMIN)
    await ask(shop, 2000, "key", OTHER_ADMIN)
    assert await shop.net() == 2000


async def test_a_key_whose_refund_is_pending_is_in_flight_and_later_retried() -> None:
    shop = await paid()
    shop.provider.down = True
    first = await ask(shop, 1000, "key")
    error = await refused(shop, 1000, "key")
    assert (error.code, error.reason) == (Code.ABORTED, "IDEMPOTENCY_KEY_IN_FLIGHT")
    shop.clock.advance(SETTLE_AFTER)
    shop.provider.down = False
    again = await ask(shop, 1000, "key")
    assert (again.id, again.status) == (first.id, RefundStatus.SUCCEEDED)


@pytest.mark.parametrize("caller", [OWNER, STRANGER, Identity("orders", frozenset({"service"}))])
async def test_only_an_administrator_refunds(caller: Identity) -> None:
    shop = await paid()
    with pytest.raises(ServiceError) as raised:
        await ask(shop, 100, caller=caller)
    assert raised.value.code is Code.PERMISSION_DENIED
    assert await shop.net() == 5000


async def test_refunds_are_listed_oldest_first_page_by_page() -> None:
    shop = await paid()
    made = []
    for _ in range(3):
        shop.clock.advance(SETTLE_AFTER)
        made.append((await ask(shop, 100)).id)
    page = await shop.refunds.list_refunds(ListRefunds(PAYMENT, 2, ""), OWNER)
    rest = await shop.refunds.list_refunds(ListRefunds(PAYMENT, 2, page.next_cursor or ""), ADMIN)
    assert [refund.id for refund in page.items + rest.items] == made
    assert rest.next_cursor is None


async def test_refunds_are_not_found_by_others() -> None:
    shop = await paid()
    for caller, payment in ((STRANGER, PAYMENT), (OWNER, "pay_" + "0" * 32)):
        with pytest.raises(ServiceError) as raised:
            await shop.refunds.list_refunds(ListRefunds(payment, 0, ""), caller)
        assert raised.value.reason == "PAYMENT_NOT_FOUND"


async def test_an_amount_that_the_provider_cannot_refund_is_refused_at_once() -> None:
    shop = Shop(limits=PROVIDERS["stripe"])
    shop.orders.place(ORDER, amount=Money(5000, "KWD"))
    await shop.reserve()
    error = await refused(shop, 1005, currency="KWD")
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "AMOUNT_NOT_CHARGEABLE")
    assert [violation.field for violation in error.violations] == ["amount.amount"]
    assert (await ask(shop, 1010, currency="KWD")).status is RefundStatus.SUCCEEDED
