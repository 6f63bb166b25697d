"""A service that does not answer: few wait for it, the others hear so at once, and it is found again by itself."""

from __future__ import annotations

import asyncio

import pytest

from functions.runtime.errors import Code, ServiceError, invalid
from gateway.patience import Patience
from gateway.tests.conftest import CUSTOMER, Start
from gateway.tests.fakes import PRODUCT, Backend

LATE = ServiceError(Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "Too late.")


class Service:
    """Answers by and by, as told."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask(self) -> str:
        self.patience.check()

        async def answered() -> str:
            return await asyncio.shield(self.answer)

        return await self.patience.wait(answered())

    async def fail(self, error: ServiceError) -> None:
        async def failing() -> str:
            raise error

        with pytest.raises(ServiceError):
            await self.patience.wait(failing())


async def test_more_than_there_is_room_for_are_refused_at_once() -> None:
    service = Service(Patience(most=2))
    waiting = [asyncio.create_task(service.ask()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ServiceError) as refused:
        await service.ask()
    assert (refused.value.code, refused.value.reason) == (Code.UNAVAILABLE, "OVERLOADED")
    service.answer.set_result("here")
    assert await asyncio.gather(*waiting) == ["here"] * 2
    assert await service.ask() == "here"


async def test_a_silent_service_is_asked_by_one_at_a_time_until_it_answers() -> None:
    service = Service(Patience(silences=3))
    for _ in range(3):
        await service.fail(LATE)
    probe = asyncio.create_task(service.ask())
    await asyncio.sleep(0)
    with pytest.raises(ServiceError) as refused:
        await service.ask()
    assert (refused.value.reason, refused.value.retry_after) == ("SERVICE_UNAVAILABLE", 1.0)
    service.answer.set_result("here")
    assert await probe == "here"
    assert await asyncio.gather(*[service.ask() for _ in range(2)]) == ["here"] * 2


async def test_a_refusal_is_an_answer_too() -> None:
    service = Service(Patience(silences=2))
    for error in (LATE, invalid("No."), LATE):
        await service.fail(error)
    waiting = [asyncio.create_task(service.ask()) for _ in range(2)]
    service.answer.set_result("here")
    assert await asyncio.gather(*waiting) == ["here"] * 2


async def test_one_slow_method_leaves_the_others_alone_and_says_when_to_come_back(
    start: Start, backend: Backend
) -> None:
    api = await start(deadline_seconds=0.3)
    backend.slow["GetProduct"] = 60.0
    answers = await asyncio.gather(*[api.get(f"/v1/products/{PRODUCT}") for _ in range(8)])
    assert {answer.status_code for answer in answers} == {504}
    answers = await asyncio.gather(*[api.get(f"/v1/products/{PRODUCT}") for _ in range(5)])
    assert sorted(answer.status_code for answer in answers) == [503, 503, 503, 503, 504]
    assert {answer.headers["retry-after"] for answer in answers} == {"1"}
    assert (await api.get("/v1/orders", headers=CUSTOMER)).status_code == 200
    backend.slow.clear()
    assert (await api.get(f"/v1/products/{PRODUCT}")).status_code == 200
