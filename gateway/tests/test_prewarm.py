"""A gateway that starts wakes what it will need, and depends on none of it."""

from __future__ import annotations

import asyncio

from gateway.prewarm import prewarm
from gateway.tests.sleeping_services import SleepingServices


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
        walk = prewarm(f"127.0.0.1:{port}, localhost:{port},")
        await asyncio.to_thread(walk.join, 10)
    assert sorted(asked) == [b"Host: 127.0.0.1", b"Host: localhost"]
    assert not walk.is_alive()


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
        await asyncio.to_thread(prewarm(f"127.0.0.1:{server.sockets[0].getsockname()[1]}").join, 10)
    assert asked == 3


async def test_a_group_is_woken_when_the_one_before_it_has_answered() -> None:
    sleeping_services = SleepingServices()
    async with sleeping_services.open("first", "then") as places:
        walk = prewarm(";".join(places))
        assert await asyncio.wait_for(sleeping_services.asked.get(), 10) == "first"
        sleeping_services.may_answer.set()
        await asyncio.to_thread(walk.join, 10)
    assert sleeping_services.seen == ["first", "first answered", "then", "then answered"]


async def test_what_cannot_be_woken_ends_quietly_and_keeps_none_from_the_next() -> None:
    walk = prewarm("127.0.0.1:1,nonsense;127.0.0.1:1", seconds=0.3)
    await asyncio.to_thread(walk.join, 10)
    assert not walk.is_alive()


def test_nothing_is_woken_where_nothing_is_named() -> None:
    walk = prewarm("")
    walk.join(10)
    assert not walk.is_alive()
