"""A dependency that keeps failing is not called for a while, and is found again when it is back."""

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


async def test_after_three_consecutive_failures_calls_are_refused_until_the_time_is_over(
    provider: Provider,
) -> None:
    await fail(provider)
    provider.seconds = 4.0
    with pytest.raises(ServiceError) as raised:
        await provider.breaker.call(provider._work)
    error = raised.value
    assert (error.code, error.reason, error.retry_after) == (Code.UNAVAILABLE, "MAIL_UNAVAILABLE", 6.0)
    assert (provider.asked, provider.state) == (3, 1.0)


async def test_then_one_call_probes_while_the_others_are_refused(provider: Provider) -> None:
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


async def test_after_a_cancelled_probe_the_next_call_probes(provider: Provider) -> None:
    await fail(provider)
    provider.seconds, provider.fault = 10.0, None
    probe = asyncio.create_task(provider.ask())
    await asyncio.sleep(0)
    assert provider.state == 0.5
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert await provider.ask() == "sent"


@pytest.mark.parametrize("answer", [None, invalid("Not like this."), KeyError("a refusal of its own kind")])
async def test_only_consecutive_failures_count_and_any_other_answer_closes_the_circuit(
    provider: Provider, answer: Exception | None
) -> None:
    for _ in range(3):
        provider.fault = DOWN
        await provider.ask()
        await provider.ask()
        provider.fault = answer
        await asyncio.gather(provider.ask(), return_exceptions=True)
    assert (provider.asked, provider.state) == (9, 0.0)


async def test_a_caller_chooses_what_counts_as_a_failure_and_how_it_is_refused(provider: Provider) -> None:
    breaker = CircuitBreaker(
        failures=1,
        seconds=0.0,
        is_failure=lambda error: error.code is Code.DEADLINE_EXCEEDED,
        refuse=lambda _, seconds: unavailable("SERVICE_UNAVAILABLE", "No answer.", seconds + 1.0),
    )
    provider.breaker = breaker
    provider.fault = DOWN
    assert [await provider.ask() for _ in range(2)] == ["MAIL_UNAVAILABLE 1.0"] * 2
    provider.fault = ServiceError(Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "Too late.")
    outcomes = await asyncio.gather(*(provider.ask() for _ in range(3)))
    assert list(outcomes) == ["DEADLINE_EXCEEDED None"] * 3  # they began while it was closed
    outcomes = await asyncio.gather(*(provider.ask() for _ in range(3)))
    assert list(outcomes) == ["DEADLINE_EXCEEDED None", *["SERVICE_UNAVAILABLE 1.0"] * 2]
