"""Whatever happens in whatever order, books and payments agree, and a cancelled order costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from events.catalog import Money, PaymentCaptured, PaymentRefunded
from functions.payments import refunds
from functions.payments.domain import RefundStatus, payment_id
from functions.payments.store import refunds_of
from functions.payments.tests.fake_stripe import FakeStripe, StripeBank
from functions.payments.tests.till import PRICE, Till
from functions.runtime.circuit_breaker import CircuitBreaker
from functions.runtime.errors import ServiceError
from functions.runtime.identity import Identity

ORDERS = ["ord_" + digit * 32 for digit in "12"]
ADMIN = Identity("usr_" + "d" * 32, frozenset({"admin"}))
TOKENS = ["tok_ok", "tok_slow", "tok_flaky", "tok_timeout", "tok_declined", "tok_insufficient_funds"]

Step = tuple[str, str, int]

steps = st.tuples(
    st.sampled_from(
        [
            *("reserve", "reserve", "cancel", "cancel unheard", "refund", "sweep", "forget", "restart"),
            *("refund elsewhere", "dispute", "win", "lose", "bounce"),
        ]
    ),
    st.sampled_from(ORDERS),
    st.integers(1, PRICE.amount),
)
stories = st.lists(st.lists(steps, min_size=1, max_size=4), max_size=8)  # the steps of one list at once
faults = st.lists(st.sampled_from(["", "", "before", "after"]), max_size=12)


async def take(step: Step, till: Till, cancelled: set[str]) -> None:
    """One thing that happens; a failure is what a broker or a client would see, and come back after."""
    what, order, amount = step
    with contextlib.suppress(ServiceError):
        match what:
            case "reserve":
                await till.reserve(order)
            case "cancel":
                cancelled.add(order)
                await till.cancel(order)
            case "cancel unheard":
                cancelled.add(order)
                till.orders.cancel(order)
            case "refund":
                money = Money(amount, PRICE.currency)
                await refunds.refund("pay_" + order[4:], money, "", f"key{amount}", ADMIN, till.desk)
            case "sweep":
                await till.sweep()
            case "forget":
                await till.forget()
            case "restart":  # orders is away for a while
                till.orders.down = not till.orders.down
            case _:
                await happen_at_the_provider(what, till, payment_id(order), amount)


async def happen_at_the_provider(what: str, till: Till, key: str, amount: int) -> None:
    """What people do on the provider's pages, and what the payer's bank does."""
    match what:
        case "refund elsewhere":
            await till.bank.refund(f"re_{amount}_{key}", key, Money(amount, PRICE.currency))
        case "dispute":
            await till.bank.dispute(key)
        case "win" | "lose":
            await till.bank.decide(key, won=what == "win")
        case "bounce":
            till.bounced |= await till.bank.bounce(key)


async def settle(till: Till, cancelled: set[str], faults: list[str]) -> None:
    """Everything works again: every event arrives once more, and the sweep has been."""
    till.orders.down = False
    faults.clear()
    for _ in range(3):  # tok_flaky fails twice
        for order in ORDERS:
            with contextlib.suppress(ServiceError):
                await till.reserve(order)
    for order in cancelled:
        await till.cancel(order)
    for _ in range(3):
        await till.sweep()
    for order in ORDERS:
        await till.bank.decide(payment_id(order), won=True)
    for _ in range(3):
        await till.sweep()


async def check(till: Till, cancelled: set[str]) -> None:
    kept = 0
    charges = Counter(entry.payment_id for entry in await till.ledger() if entry.kind == "charge")
    assert all(count == 1 for count in charges.values())
    for order in ORDERS:
        payment = await till.payment(order)
        assert not payment.pending
        assert payment.refunding == 0
        assert payment.disputed == payment.locked == 0
        kept_here = payment.captured - payment.refunded - payment.charged_back
        assert 0 <= kept_here <= payment.captured <= PRICE.amount
        found = (await refunds_of(till.store, payment.id, 100, None)).items
        assert all(refund.status is not RefundStatus.PENDING for refund in found)
        arrived = [refund for refund in found if refund.status is RefundStatus.SUCCEEDED]
        assert sum(refund.amount.amount for refund in arrived) == payment.refunded
        assert order not in cancelled or kept_here == 0 or payment.id in till.bounced
        kept += kept_here
    assert await till.net() == kept
    check_events(till)


def check_events(till: Till) -> None:
    """What was told is what happened: no capture and no refund twice."""
    captured = [event.order_id for event in till.store.events if isinstance(event, PaymentCaptured)]
    refunded = [event.refund_id for event in till.store.events if isinstance(event, PaymentRefunded)]
    assert len(captured) == len(set(captured))
    assert len(refunded) == len(set(refunded))


@settings(max_examples=150, deadline=None)
@given(stories, faults, st.lists(st.sampled_from(TOKENS), min_size=2, max_size=2))
def test_money_is_conserved(story: list[list[Step]], lost: list[str], tokens: list[str]) -> None:
    async def at_the_simulated_one() -> None:
        till = Till()
        till.provider.faults = list(lost)
        await runner(till, story, till.provider.faults, tokens)

    asyncio.run(at_the_simulated_one())


async def runner(till: Till, story: list[list[Step]], faults: list[str], tokens: list[str]) -> None:
    """The story, on a line with these faults, which are used up one a call until everything is to work again."""
    cancelled = set[str]()
    for order, token in zip(ORDERS, tokens, strict=True):
        till.orders.place(order, token)
    for at_once in story:
        await asyncio.gather(*(take(step, till, cancelled) for step in at_once))
    await settle(till, cancelled, faults)
    await check(till, cancelled)


@settings(max_examples=20, deadline=None)
@given(
    stories,
    st.lists(st.sampled_from(["", "", "before", "after", "500", "429"]), max_size=12),
    st.lists(st.sampled_from(["tok_ok", "tok_ok", "tok_declined"]), min_size=2, max_size=2),
)
def test_money_is_conserved_at_stripe(story: list[list[Step]], lost: list[str], tokens: list[str]) -> None:
    async def at_stripe() -> None:
        async with FakeStripe().serve() as stripe:
            provider = stripe.provider(breaker=CircuitBreaker("stripe-test", failures=1000))
            till = Till(provider=provider)
            till.bank = StripeBank(stripe, till.clock.now)
            stripe.faults = list(lost)
            await runner(till, story, stripe.faults, tokens)
            await provider.close()

    asyncio.run(at_stripe())
