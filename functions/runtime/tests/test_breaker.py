"""A provider that is down is left alone, and found again when it is back."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from functions.runtime.circuit_breaker import CircuitBreaker
from functions.runtime.errors import Code, ServiceError, invalid, unavailable
from observability.metrics import REGISTRY

_names = (f"test-{number}" for number in count())
DOWN = unavailable("MAIL_UNAVAILABLE", "Mail cannot be sent at present.")


class Provider:
    """A provider behind a breaker (3 failures, 10 s), and the time."""

    def __init__(self) -> None:
        self.circuit = next(_names)
        self.seconds = 0.0
        self.breaker = CircuitBreaker(self.circuit, failures=3, seconds=10.0, now=lambda: self.seconds)
        self.fault: Exception | None = None
        self.asked = 0

    async def _work(self) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return "sent"

    async def ask(self) -> str:
        try:
            return await self.breaker.call(self._work)
        except ServiceError as error:
            return f"{error.reason} {error.retry_after}"

    @property
    def state(self) -> float | None:
        return REGISTRY.get_sample_value("shop_circuit_open", {"circuit": self.circuit})


@pytest.fixture
def provider() -> Provider:
    return Provider()


async def fail(provider: Provider) -> None:
    provider.fault = DOWN
    for _ in range(3):
        assert await provider.ask() == "MAIL_UNAVAILABLE 1.0"


async def test_after_three_faults_in_a_row_nobody_is_asked_until_the_time_is_over(provider: Provider) -> None:
    await fail(provider)
    provider.seconds = 4.0
    with pytest.raises(ServiceError) as raised:
        await provider.breaker.call(provider._work)
    error = raised.value
    assert (error.code, error.reason, error.retry_after) == (Code.UNAVAILABLE, "MAIL_UNAVAILABLE", 6.0)
    assert (provider.asked, provider.state) == (3, 1.0)


async def test_then_one_call_sees_whether_it_is_back_while_others_wait(provider: Provider) -> None:
    await fail(provider)
    provider.seconds, provider.fault = 10.0, None
    outcomes = await asyncio.gather(provider.ask(), provider.ask())
    assert list(outcomes) == ["sent", "MAIL_UNAVAILABLE 1.0"]
    assert (provider.asked, provider.state) == (4, 0.0)
    assert await provider.ask() == "sent"


async def test_a_failed_probe_opens_it_again(provider: Provider) -> None:
    await fail(provider)
    provider.seconds = 10.0
    await provider.ask()
    assert provider.state == 1.0
    assert await provider.ask() == "MAIL_UNAVAILABLE 10.0"
    assert provider.asked == 4


async def test_a_probe_that_is_cancelled_leaves_the_next_one_to_see(provider: Provider) -> None:
    await fail(provider)
    provider.seconds, provider.fault = 10.0, None
    probe = asyncio.create_task(provider.ask())
    await asyncio.sleep(0)
    assert provider.state == 0.5
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert await provider.ask() == "sent"


@pytest.mark.parametrize("answer", [None, invalid("Not like this."), KeyError("a refusal of its own kind")])
async def test_faults_count_in_a_row_and_an_answer_of_any_kind_ends_it(
    provider: Provider, answer: Exception | None
) -> None:
    for _ in range(3):
        provider.fault = DOWN
        await provider.ask()
        await provider.ask()
        provider.fault = answer
        await asyncio.gather(provider.ask(), return_exceptions=True)
    assert (provider.asked, provider.state) == (9, 0.0)
