"""A part that is frozen: nobody waits for ever, nothing else suffers, and it is found again when it thaws."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from knative.local.demo.shop import Person, Shop
from knative.local.demo.stories import eventually
from tests.e2e.conftest import MakeProduct
from tests.e2e.platform import LocalPlatform

BURST = 300
Answer = tuple[int, Any, Mapping[str, str]]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process holds its connections, and does not answer."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("part", ["products", "orders"])
async def test_a_frozen_part_costs_an_answer_and_no_more(
    local: LocalPlatform, shop: Shop, customer: Person, make_product: MakeProduct, part: str
) -> None:
    product = await make_product(on_hand=BURST)
    path = {"products": f"/v1/products/{product['id']}", "orders": "/v1/orders"}[part]
    with frozen(local.pid(part)):
        async with asyncio.timeout(20):  # all have 5 s, whatever the machine's load
            burst = await asyncio.gather(*[shop.raw("GET", path, who=customer) for _ in range(BURST)])
            after = await asyncio.gather(*[shop.raw("GET", path, who=customer) for _ in range(10)])
        assert_told_to_come_back([*burst, *after])
        assert 503 in {status for status, _, _ in after}, "a part that is known to be silent is not waited for"
        assert (await shop.raw("GET", "/v1/users/me", who=customer))[0] == 200

    async def answers() -> bool:
        return (await shop.raw("GET", path, who=customer))[0] == 200

    await eventually(answers, f"an answer of {part}, which has thawed")
    order = await shop.order(customer, {product["id"]: 1})
    assert (await shop.settled(customer, order["id"]))["status"] == "CONFIRMED"


def assert_told_to_come_back(answers: list[Answer]) -> None:
    """503 or 504, with the time to wait, as problem documents."""
    assert {status for status, _, _ in answers} <= {503, 504}
    for status, problem, headers in answers:
        assert int(headers["retry-after"]) >= 1
        assert problem["status"] == status
