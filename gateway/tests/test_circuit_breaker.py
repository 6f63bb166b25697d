"""A service that does not answer: few requests wait for it, the others are refused at once."""

from __future__ import annotations

import asyncio

import pytest

from gateway import clients
from gateway.tests.conftest import CUSTOMER, Start, assert_problem
from gateway.tests.fakes import PRODUCT, Backend


async def test_more_calls_of_a_method_than_there_is_room_for_are_refused_at_once(
    start: Start, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "MAX_CALLS_PER_METHOD", 2)
    api = await start()
    backend.slow["GetProduct"] = 0.5
    answers = await asyncio.gather(*[api.get(f"/v1/products/{PRODUCT}") for _ in range(4)])
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 2
    assert_problem(refused[0], 503, "OVERLOADED")
    assert (await api.get(f"/v1/products/{PRODUCT}")).status_code == 200


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
