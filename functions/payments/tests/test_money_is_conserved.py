"""In any order of steps and faults, ledger and payments agree, and a cancelled order costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from events.catalog import Money, PaymentCaptured, PaymentRefunded
from functions.payments.domain import RefundStatus, payment_id
from functions.payments.refunds import RefundPayment
from functions.payments.store import refunds_of
from functions.payments.tests.fake_stripe import FakeStripe, StripeBank
from functions.payments.tests.shop import PRICE, Shop
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


async def take(step: Step, shop: Shop, cancelled: set[str]) -> None:
    """Take one step. A failure is what a broker or a client would see and retry."""
    what, order, amount = step
    with contextlib.suppress(ServiceError):
        match what:
            case "reserve":
                await shop.reserve(order)
            case "cancel":
                cancelled.add(order)
                await shop.cancel(order)
            case "cancel unheard":
                cancelled.add(order)
                shop.orders.cancel(order)
            case "refund":
                money = Money(amount, PRICE.currency)
                command = RefundPayment(payment_id(order), money, idempotency_key=f"key{amount}")
                await shop.refunds.refund(command, ADMIN)
            case "sweep":
                await shop.sweep()
            case "forget":
                await shop.forget()
            case "restart":  # orders does not answer for a while
                shop.orders.down = not shop.orders.down
            case _:
                await happen_at_the_provider(what, shop, payment_id(order), amount)


async def happen_at_the_provider(what: str, shop: Shop, key: str, amount: int) -> None:
    """Take a step that does not come from the shop."""
    match what:
        case "refund elsewhere":
            await shop.bank.refund(f"re_{amount}_{key}", key, Money(amount, PRICE.currency))
        case "dispute":
            await shop.bank.dispute(key)
        case "win" | "lose":
            await shop.bank.decide(key, won=what == "win")
        case "bounce":
            shop.bounced |= await shop.bank.bounce(key)


async def settle(shop: Shop, cancelled: set[str], faults: list[str]) -> None:
    """End all faults, deliver every event again, and sweep."""
    shop.orders.down = False
    faults.clear()
    for _ in range(3):  # tok_flaky fails twice
        for order in ORDERS:
            with contextlib.suppress(ServiceError):
                await shop.reserve(order)
    for order in cancelled:
        await shop.cancel(order)
    for _ in range(3):
        await shop.sweep()
    for order in ORDERS:
        await shop.bank.decide(payment_id(order), won=True)
    for _ in range(3):
        await shop.sweep()


async def check(shop: Shop, cancelled: set[str]) -> None:
    kept = 0
    charges = Counter(entry.payment_id for entry in await shop.ledger() if entry.kind == "charge")
    assert all(count == 1 for count in charges.values())
    for order in ORDERS:
        payment = await shop.payment(order)
        assert not payment.pending
        assert payment.refunding == 0
        assert payment.disputed == payment.locked == 0
        kept_here = payment.captured - payment.refunded - payment.charged_back
        assert 0 <= kept_here <= payment.captured <= PRICE.amount
        found = (await refunds_of(shop.store, payment.id, 100, None)).items
        assert all(refund.status is not RefundStatus.PENDING for refund in found)
        arrived = [refund for refund in found if refund.status is RefundStatus.SUCCEEDED]
        assert sum(refund.amount.amount for refund in arrived) == payment.refunded
        assert order not in cancelled or kept_here == 0 or payment.id in shop.bounced
        kept += kept_here
    assert await shop.net() == kept
    check_events(shop)


def check_events(shop: Shop) -> None:
    """No capture and no refund has two events."""
    captured = [event.order_id for event in shop.store.events if isinstance(event, PaymentCaptured)]
    refunded = [event.refund_id for event in shop.store.events if isinstance(event, PaymentRefunded)]
    assert len(captured) == len(set(captured))
    assert len(refunded) == len(set(refunded))


@settings(max_examples=150)
@given(stories, faults, st.lists(st.sampled_from(TOKENS), min_size=2, max_size=2))
def test_money_is_conserved(story: list[list[Step]], lost: list[str], tokens: list[str]) -> None:
    async def at_the_simulated_provider() -> None:
        shop = Shop()
        shop.provider.faults = list(lost)
        await play(shop, story, shop.provider.faults, tokens)

    asyncio.run(at_the_simulated_provider())


async def play(shop: Shop, story: list[list[Step]], faults: list[str], tokens: list[str]) -> None:
    """Play the story with faults, of which each call consumes one, then settle everything and check."""
    cancelled = set[str]()
    for order, token in zip(ORDERS, tokens, strict=True):
        shop.orders.place(order, token)
    for at_once in story:
        await asyncio.gather(*(take(step, shop, cancelled) for step in at_once))
    await settle(shop, cancelled, faults)
    await check(shop, cancelled)


@settings(max_examples=20)
@given(
    stories,
    st.lists(st.sampled_from(["", "", "before", "after", "500", "429"]), max_size=12),
    st.lists(st.sampled_from(["tok_ok", "tok_ok", "tok_declined"]), min_size=2, max_size=2),
)
def test_money_is_conserved_at_stripe(story: list[list[Step]], lost: list[str], tokens: list[str]) -> None:
    async def at_stripe() -> None:
        async with FakeStripe().serve() as stripe:
            provider = stripe.provider(breaker=CircuitBreaker("stripe-test", failures=1000))
            shop = Shop(provider=provider)
            shop.bank = StripeBank(stripe, shop.clock.now)
            stripe.faults = list(lost)
            await play(shop, story, stripe.faults, tokens)
            await provider.close()

    asyncio.run(at_stripe())
