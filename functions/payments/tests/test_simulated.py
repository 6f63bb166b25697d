"""Behaviour of the simulated provider only: slow and flaky tokens."""

from __future__ import annotations

import asyncio

import pytest

from events.catalog import Money
from functions.payments.providers import simulated
from functions.payments.providers.port import ChargeOutcome, TimeLimitedProvider
from functions.payments.providers.simulated import SimulatedProvider
from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.store.memory import MemoryStore

TEN = Money(1000, "EUR")


def provider(slow_seconds: float = 0.0) -> SimulatedProvider:
    clock = ManualClock()
    return SimulatedProvider(MemoryStore(simulated.MAPPINGS, clock), clock, slow_seconds)


async def test_a_slow_charge_that_is_voided_meanwhile_does_not_happen() -> None:
    simulated_provider = provider(slow_seconds=0.05)
    slow = asyncio.create_task(simulated_provider.charge("k", TEN, "tok_slow"))
    await asyncio.sleep(0)
    assert await simulated_provider.void("k") is ChargeOutcome.VOIDED
    assert await slow is ChargeOutcome.VOIDED


async def test_a_slow_charge_fails_at_its_bound_and_can_be_repeated() -> None:
    bounded = TimeLimitedProvider(provider(slow_seconds=60), seconds=0.01)
    with pytest.raises(ServiceError) as raised:
        await bounded.charge("k", TEN, "tok_slow")
    assert (raised.value.code, raised.value.reason) == (Code.UNAVAILABLE, "PAYMENT_PROVIDER_UNAVAILABLE")
    assert await bounded.charge("k", TEN, "tok_ok") is ChargeOutcome.CAPTURED


async def test_a_flaky_token_fails_twice_for_each_key() -> None:
    simulated_provider = provider()
    for key in ("a", "b"):
        for _ in range(2):
            with pytest.raises(ServiceError):
                await simulated_provider.charge(key, TEN, "tok_flaky")
        assert await simulated_provider.charge(key, TEN, "tok_flaky") is ChargeOutcome.CAPTURED
