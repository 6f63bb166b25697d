"""Clients that send slowly, or open much at once, take nothing from others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from gateway.server import GatewayServer
from gateway.tests.conftest import Start, StartServer, assert_problem
from gateway.tests.fakes import PRODUCT, Backend

LOGIN = b"POST /v1/sessions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 60\r\n\r\n{"


@asynccontextmanager
async def slow(live: GatewayServer, count: int, source: str = "127.0.0.1") -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connections from `source` that have begun to send the body of a login, as far as they were taken."""
    opened = [await asyncio.open_connection("127.0.0.1", live.http_port, local_addr=(source, 0)) for _ in range(count)]
    for _, writer in opened:
        writer.write(LOGIN)
    yield [reader for reader, _ in opened]
    for _, writer in opened:
        writer.close()


async def until_held(live: GatewayServer, count: int) -> None:
    async with asyncio.timeout(5):
        while live.gateway.open_requests.active != count:  # noqa: ASYNC110 - only the gateway knows when
            await asyncio.sleep(0.01)


async def test_a_request_takes_its_place_when_its_body_is_there(start_server: StartServer) -> None:
    live = await start_server(max_concurrency=2)
    async with slow(live, 5), httpx.AsyncClient(base_url=live.http_url) as api:
        await until_held(live, 5)
        assert live.gateway.active_requests.active == 0
        body = {"email": "ada@example.com", "password": "correct horse battery"}
        assert (await api.post("/v1/sessions", json=body)).status_code == 200
        assert (await api.get(f"/v1/products/{PRODUCT}")).status_code == 200
    await until_held(live, 0)


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("203.0.113.1", "203.0.113.1", "203.0.113.2"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"),
    ],
)
async def test_one_address_has_a_share_of_all_that_is_served_at_once(
    start: Start, backend: Backend, one: str, same: str, other: str
) -> None:
    api = await start(max_concurrency_each=2, trusted_proxy_hops=1)
    backend.slow["GetProduct"] = 0.5

    async def ask(address: str) -> httpx.Response:
        return await api.get(f"/v1/products/{PRODUCT}", headers={"x-forwarded-for": address})

    answers = await asyncio.gather(*(ask(address) for address in (one, one, same, other)))
    assert [answer.status_code for answer in answers] == [200, 200, 503, 200]
    assert_problem(answers[2], 503, "TOO_MANY_AT_ONCE")
    assert (await ask(one)).status_code == 200


async def test_a_slow_body_counts_for_its_address(start_server: StartServer) -> None:
    live = await start_server(max_concurrency_each=3)
    async with slow(live, 3), httpx.AsyncClient(base_url=live.http_url) as api:
        await until_held(live, 3)
        assert_problem(await api.get(f"/v1/products/{PRODUCT}"), 503, "TOO_MANY_AT_ONCE")


async def test_one_address_has_a_share_of_all_connections(start_server: StartServer) -> None:
    live = await start_server(max_connections_each=3)
    async with slow(live, 5, "127.0.0.2") as readers:
        turned_away = 0
        for reader in readers[3:]:
            answered = await asyncio.wait_for(reader.read(), 5)
            turned_away += answered.startswith(b"HTTP/1.1 503 ") and b"TOO_MANY_AT_ONCE" in answered
        assert turned_away == 2
        async with httpx.AsyncClient(base_url=live.http_url) as api:
            assert (await api.get(f"/v1/products/{PRODUCT}")).status_code == 200
    await until_held(live, 0)
    async with slow(live, 3, "127.0.0.2"):
        await until_held(live, 3)
