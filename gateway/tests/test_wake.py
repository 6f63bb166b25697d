"""A gateway that starts wakes what it will need, and depends on none of it."""

from __future__ import annotations

import asyncio

from gateway.wake import wake


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
        threads = wake(f"127.0.0.1:{port}, localhost:{port},")
        await asyncio.gather(*(asyncio.to_thread(thread.join, 10) for thread in threads))
    assert sorted(asked) == [b"Host: 127.0.0.1", b"Host: localhost"]
    assert not any(thread.is_alive() for thread in threads)


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
        threads = wake(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await asyncio.gather(*(asyncio.to_thread(thread.join, 10) for thread in threads))
    assert asked == 3


async def test_what_cannot_be_woken_ends_quietly() -> None:
    threads = wake("127.0.0.1:1,nonsense", seconds=0.3)
    await asyncio.gather(*(asyncio.to_thread(thread.join, 10) for thread in threads))
    assert not any(thread.is_alive() for thread in threads)


def test_nothing_is_woken_where_nothing_is_named() -> None:
    assert wake("") == []
