"""The contract of the port, for each provider: one key, one movement, one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from events.catalog import Money
from functions.payments.providers import simulated
from functions.payments.providers.port import ChargeOutcome, PaymentProvider, RefundOutcome
from functions.payments.providers.simulated import SimulatedProvider
from functions.payments.tests.fake_stripe import FakeStripe
from functions.runtime.clock import ManualClock
from functions.runtime.store.memory import MemoryStore

TEN = Money(1000, "EUR")


@pytest.fixture(params=["simulated", "stripe"])
async def provider(request: pytest.FixtureRequest) -> AsyncIterator[PaymentProvider]:
    if request.param == "simulated":
        clock = ManualClock()
        yield SimulatedProvider(MemoryStore(simulated.MAPPINGS, clock), clock, 0.0)
        return
    async with FakeStripe().serve() as stripe:
        adapter = stripe.provider()
        yield adapter
        await adapter.close()


async def moved(provider: PaymentProvider) -> list[tuple[str, str, int, str]]:
    entries = (await provider.ledger(100, None)).items
    return sorted((entry.id, entry.kind, entry.amount.amount, entry.outcome) for entry in entries)


async def test_a_charge_is_captured_and_in_the_ledger(provider: PaymentProvider) -> None:
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.CAPTURED
    assert await moved(provider) == [("k", "charge", 1000, "succeeded")]


@pytest.mark.parametrize(
    ("token", "outcome"),
    [
        ("tok_declined", ChargeOutcome.PAYMENT_DECLINED),
        ("tok_insufficient_funds", ChargeOutcome.INSUFFICIENT_FUNDS),
        ("tok_nobody_knows", ChargeOutcome.PAYMENT_DECLINED),
        ("a token of no kind", ChargeOutcome.PAYMENT_DECLINED),
    ],
)
async def test_a_refusal_moves_nothing_and_gives_its_reason(
    provider: PaymentProvider, token: str, outcome: ChargeOutcome
) -> None:
    assert await provider.charge("k", TEN, token) is outcome
    assert [entry[2] for entry in await moved(provider)] == [0]


async def test_the_same_key_gets_the_same_answer_whatever_the_token(provider: PaymentProvider) -> None:
    assert await provider.charge("k", TEN, "tok_declined") is ChargeOutcome.PAYMENT_DECLINED
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.PAYMENT_DECLINED
    assert len(await moved(provider)) == 1


async def test_the_same_charge_many_times_at_once_happens_once(provider: PaymentProvider) -> None:
    outcomes = await asyncio.gather(*(provider.charge("k", TEN, "tok_ok") for _ in range(10)))
    assert set(outcomes) == {ChargeOutcome.CAPTURED}
    assert await moved(provider) == [("k", "charge", 1000, "succeeded")]


async def test_a_void_before_the_charge_prevents_it(provider: PaymentProvider) -> None:
    assert await provider.void("k") is ChargeOutcome.VOIDED
    assert await provider.charge("k", TEN, "tok_ok") is ChargeOutcome.VOIDED
    assert await moved(provider) == [("k", "charge", 0, "voided")]


async def test_a_void_after_the_charge_returns_its_outcome(provider: PaymentProvider) -> None:
    await provider.charge("k", TEN, "tok_ok")
    assert await provider.void("k") is ChargeOutcome.CAPTURED
    await provider.charge("d", TEN, "tok_insufficient_funds")
    assert await provider.void("d") is ChargeOutcome.INSUFFICIENT_FUNDS


async def test_refunds_never_exceed_their_charge(provider: PaymentProvider) -> None:
    await provider.charge("k", TEN, "tok_ok")
    assert await provider.refund("r1", "k", Money(600, "EUR")) is RefundOutcome.SUCCEEDED
    assert await provider.refund("r2", "k", Money(600, "EUR")) is RefundOutcome.REFUSED
    assert await provider.refund("r3", "k", Money(400, "EUR")) is RefundOutcome.SUCCEEDED
    assert await provider.refund("r1", "k", Money(600, "EUR")) is RefundOutcome.SUCCEEDED
    assert [entry[2] for entry in await moved(provider)] == [1000, 600, 0, 400]


async def test_a_refund_without_a_charge_or_in_another_currency_is_refused(provider: PaymentProvider) -> None:
    await provider.charge("declined", TEN, "tok_declined")
    await provider.charge("charged", TEN, "tok_ok")
    assert await provider.refund("r1", "declined", TEN) is RefundOutcome.REFUSED
    assert await provider.refund("r2", "unknown", TEN) is RefundOutcome.REFUSED
    assert await provider.refund("r3", "charged", Money(1000, "USD")) is RefundOutcome.REFUSED


async def test_the_ledger_is_read_oldest_first_page_by_page(provider: PaymentProvider) -> None:
    for key in ("a", "b", "c"):
        await provider.charge(key, TEN, "tok_ok")
    first = await provider.ledger(2, None)
    rest = await provider.ledger(2, first.next_cursor)
    assert sorted(entry.id for entry in first.items + rest.items) == ["a", "b", "c"]
    assert rest.next_cursor is None
