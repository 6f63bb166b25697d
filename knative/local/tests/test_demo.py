"""Where the demo looks for its platform, and how it asks one that is busy."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from knative.local.data import Data
from knative.local.demo.__main__ import where
from knative.local.demo.shop import Refused, Shop

Answer = tuple[int, dict[str, str]]


class Busy:
    """A platform that gives these answers (status and headers), one after the other, and then 200."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[float] = []

    async def answer(self, _: web.Request) -> web.Response:
        """The next answer."""
        self.asked.append(time.monotonic())
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        return web.json_response({"reason": "BUSY"}, status=status, headers=headers)

    @property
    def pauses(self) -> list[float]:
        """Seconds between one request and the next."""
        return [later - sooner for sooner, later in zip(self.asked, self.asked[1:], strict=False)]


@pytest.fixture
def busy() -> Busy:
    return Busy()


@pytest.fixture
async def shop(busy: Busy) -> AsyncIterator[Shop]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", busy.answer)
    async with TestServer(app) as server, Shop(str(server.make_url("/"))) as client:
        yield client


async def test_a_busy_platform_is_asked_again_no_sooner_than_it_says(busy: Busy, shop: Shop) -> None:
    busy.answers = [(503, {"retry-after": "1"})]
    await shop.patiently("GET", "/v1/products")
    assert len(busy.asked) == 2
    assert busy.pauses[0] >= 1


@pytest.mark.parametrize("headers", [{}, {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, {"retry-after": "-3"}])
async def test_one_that_names_no_seconds_is_asked_again_after_a_pause(
    busy: Busy, shop: Shop, headers: dict[str, str]
) -> None:
    busy.answers = [(429, headers), (504, headers)]
    await shop.patiently("GET", "/v1/products")
    assert len(busy.asked) == 3
    assert min(busy.pauses) >= 0.2


async def test_a_refusal_that_would_stay_one_is_not_repeated(busy: Busy, shop: Shop) -> None:
    busy.answers = [(409, {"retry-after": "1"})]
    with pytest.raises(Refused):
        await shop.patiently("POST", "/v1/orders")
    assert len(busy.asked) == 1


async def test_patience_ends(busy: Busy, shop: Shop) -> None:
    busy.answers = [(503, {"retry-after": "30"})] * 9
    with pytest.raises(Refused):
        await shop.patiently("GET", "/v1/products", seconds=0.3)
    assert 1 < len(busy.asked) < 9


def test_the_demo_finds_the_platform_that_runs_here_on_whatever_ports(tmp_path: Path) -> None:
    data = Data(tmp_path)
    assert where({}, data) == "http://127.0.0.1:8080"
    data.publish({"base_url": "http://127.0.0.1:8180"})
    assert where({}, data) == "http://127.0.0.1:8180"
    assert where({"SHOP_URL": "http://shop.test"}, data) == "http://shop.test"
