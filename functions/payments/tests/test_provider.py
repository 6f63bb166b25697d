"""The simulated provider keeps its promise: one key, one movement, one answer."""

from __future__ import annotations

import asyncio

import pytest

from events.catalog import Money
from functions.payments import simulated
from functions.payments.bootstrap import open_provider
from functions.payments.provider import Bounded, ChargeOutcome, RefundOutcome
from functions.payments.settings import Settings
from functions.payments.simulated import SimulatedProvider
from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.settings import SettingsError, load
from functions.runtime.store.memory import MemoryStore

TEN = Money(1000, "EUR")


def provider(slow_seconds: float = 0.0) -> SimulatedProvider:
    clock = ManualClock()
    return SimulatedProvider(MemoryStore(simulated.KINDS, clock), clock, slow_seconds)


async def test_the_same_key_gets_the_same_answer_whatever_the_token() -> None:
    books = provider()
    assert await books.charge("k", TEN, "tok_declined") is ChargeOutcome.PAYMENT_DECLINED
    assert await books.charge("k", TEN, "tok_ok") is ChargeOutcome.PAYMENT_DECLINED
    assert len((await books.ledger(10, None)).items) == 1


async def test_a_void_before_the_charge_prevents_it() -> None:
    books = provider()
    assert await books.void("k") is ChargeOutcome.VOIDED
    assert await books.charge("k", TEN, "tok_ok") is ChargeOutcome.VOIDED
    assert [entry.amount.amount for entry in (await books.ledger(10, None)).items] == [0]


async def test_a_void_after_the_charge_tells_what_happened() -> None:
    books = provider()
    await books.charge("k", TEN, "tok_ok")
    assert await books.void("k") is ChargeOutcome.CAPTURED


async def test_a_slow_charge_that_is_voided_meanwhile_does_not_happen() -> None:
    books = provider(slow_seconds=0.05)
    slow = asyncio.create_task(books.charge("k", TEN, "tok_slow"))
    await asyncio.sleep(0)
    assert await books.void("k") is ChargeOutcome.VOIDED
    assert await slow is ChargeOutcome.VOIDED


async def test_a_slow_charge_fails_at_its_bound_and_can_be_repeated() -> None:
    bounded = Bounded(provider(slow_seconds=60), seconds=0.01)
    with pytest.raises(ServiceError) as raised:
        await bounded.charge("k", TEN, "tok_slow")
    assert (raised.value.code, raised.value.reason) == (Code.UNAVAILABLE, "PAYMENT_PROVIDER_UNAVAILABLE")
    assert await bounded.charge("k", TEN, "tok_ok") is ChargeOutcome.CAPTURED


async def test_a_flaky_token_fails_twice_for_each_key() -> None:
    books = provider()
    for key in ("a", "b"):
        for _ in range(2):
            with pytest.raises(ServiceError):
                await books.charge(key, TEN, "tok_flaky")
        assert await books.charge(key, TEN, "tok_flaky") is ChargeOutcome.CAPTURED


async def test_refunds_never_exceed_their_charge() -> None:
    books = provider()
    await books.charge("k", TEN, "tok_ok")
    assert await books.refund("r1", "k", Money(600, "EUR")) is RefundOutcome.SUCCEEDED
    assert await books.refund("r2", "k", Money(600, "EUR")) is RefundOutcome.REFUSED
    assert await books.refund("r3", "k", Money(400, "EUR")) is RefundOutcome.SUCCEEDED
    assert await books.refund("r1", "k", Money(600, "EUR")) is RefundOutcome.SUCCEEDED


async def test_what_was_not_charged_or_in_another_currency_is_not_refunded() -> None:
    books = provider()
    await books.charge("declined", TEN, "tok_declined")
    await books.charge("charged", TEN, "tok_ok")
    assert await books.refund("r1", "declined", TEN) is RefundOutcome.REFUSED
    assert await books.refund("r2", "unknown", TEN) is RefundOutcome.REFUSED
    assert await books.refund("r3", "charged", Money(1000, "USD")) is RefundOutcome.REFUSED


async def test_a_provider_without_an_adapter_is_refused_by_name() -> None:
    settings = load(Settings, {"PAYMENT_PROVIDER": "stripe", "STORE_URL": "memory:"})
    with pytest.raises(SettingsError, match="PAYMENT_PROVIDER: stripe is not supported yet"):
        open_provider(settings, ManualClock())
