"""A gateway wakes what an order will need, and depends on none of it."""

from __future__ import annotations

import asyncio
from threading import Thread

import httpx
import msgspec

from functions.runtime.tests.support import FakeVerifier
from gateway.app import create_app
from gateway.prewarm import prewarm
from gateway.settings import Settings
from gateway.tests.conftest import CUSTOMER
from gateway.tests.fakes import Backend
from gateway.tests.test_errors import new_order


async def ended(pings: list[Thread]) -> None:
    """Wait until the pings have ended."""
    for ping in pings:
        await asyncio.to_thread(ping.join, 10)
        assert not ping.is_alive()


async def test_each_address_is_asked_once_and_an_answer_ends_the_wait() -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).splitlines()[1])
        writer.write(b"HTTP/1.1 415 Unsupported Media Type\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        pings = prewarm(f"127.0.0.1:{port}, localhost:{port},")
        await ended(pings)
    assert sorted(asked) == [b"Host: 127.0.0.1", b"Host: localhost"]


async def test_what_breaks_off_is_asked_again_until_it_answers() -> None:
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        if asked == 3:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        await ended(prewarm(f"127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    assert asked == 3


async def test_what_cannot_be_woken_ends_quietly() -> None:
    await ended(prewarm("127.0.0.1:1,nonsense", seconds=0.3))


def test_nothing_is_woken_where_nothing_is_named() -> None:
    assert prewarm("") == []


async def test_an_order_wakes_what_it_calls_and_when_it_is_answered_what_handles_its_events(
    settings: Settings, backend: Backend
) -> None:
    steps: list[str] = []
    app = create_app(
        msgspec.structs.replace(settings, wake="users:80,orders:80;products-events:80;orders-events:80"),
        verifier=FakeVerifier(),
        ping=steps.append,
    )
    transport = httpx.ASGITransport(app, client=("192.0.2.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test", headers=CUSTOMER) as client:
        await client.get("/v1/products")
        assert steps == []
        refused = await client.post("/v1/orders", json={})
        assert (refused.status_code, steps) == (400, ["users:80,orders:80"])
        steps.append("order")
        answer = await client.post("/v1/orders", json=new_order(), headers={"idempotency-key": "key-0001"})
        assert answer.status_code == 201
        again = await client.post("/v1/orders", json=new_order(), headers={"idempotency-key": "key-0002"})
        assert again.status_code == 201
    assert steps == ["users:80,orders:80", "order", "products-events:80,orders-events:80"]
    await app.state.gateway.clients.close()
