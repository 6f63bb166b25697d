"""The client's dealings with servers that are not polite."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from events.http_client import HttpClient, RequestFailed, Response


@contextlib.asynccontextmanager
async def server(*answers: bytes, close: bool = False) -> AsyncIterator[str]:
    """Answers each request with the next bytes; then, or on `close`, it hangs up."""
    left = list(answers)
    open_writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                if left:
                    writer.write(left.pop(0))
                if close or not left:
                    break
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
    finally:
        listener.close()
        for writer in open_writers:
            writer.close()


async def post(*answers: bytes, close: bool = False, timeout: float = 5.0) -> list[Response]:
    client = HttpClient()
    async with server(*answers, close=close) as url:
        target = client.target(url)
        found = [await client.post(target, b"", b"", timeout) for _ in range(max(1, len(answers)))]
        client.close()
        return found


async def test_a_connection_is_used_again() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    assert [response.body for response in await post(answer, answer, answer)] == [b"hi"] * 3


async def test_a_connection_that_was_closed_meanwhile_is_replaced_unseen() -> None:
    answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    assert [response.status for response in await post(answer, answer, close=True)] == [204, 204]


async def test_a_body_may_end_with_the_connection() -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\nall of it"
    assert [response.body for response in await post(answer, close=True)] == [b"all of it"]


async def test_chunks_are_put_together() -> None:
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    assert [response.body for response in await post(answer)] == [b"abc"]


async def test_an_interim_answer_is_passed_over() -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
    response = (await post(answer))[0]
    assert (response.status, list(response.headers)) == (202, [(b"content-length", b"0")])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "closed before"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "closed before"),
        (b"SSH-2.0-OpenSSH\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n" + b"x" * 1_500_000, "longer than"),
    ],
)
async def test_what_is_no_whole_answer_is_an_error(answer: bytes, message: str) -> None:
    with pytest.raises(RequestFailed, match=message):
        await post(answer, close=True)


async def test_an_answer_may_offer_another_protocol_but_not_switch_to_it() -> None:
    offer = b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nhi"
    assert [response.body for response in await post(b"HTTP/1.1 200 OK\r\n" + offer)] == [b"hi"]
    with pytest.raises(RequestFailed, match="nobody asked for"):
        await post(b"HTTP/1.1 101 Switching Protocols\r\n" + offer)
