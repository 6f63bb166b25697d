"""uvicorn as all our servers run it: an offer to upgrade is ignored, and no body is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from events.http_server import Server, bind

OFFERS = [
    b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    b"Upgrade: h2c\r\nConnection: upgrade\r\n",
    b"connection: keep-alive\r\nconnection: upgrade\r\nupgrade: websocket\r\nupgrade: h2c\r\n",
    b"upgrade: TLS/1.0, HTTP/2.0\r\nconnection: Upgrade\r\n",
    b"",
]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the method, the path, the names of the headers, and the body."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    names = b",".join(sorted(name for name, _ in scope["headers"]))
    said = b"%b %b [%b] %b" % (scope["method"].encode(), scope["path"].encode(), names, body)
    length = (b"content-length", str(len(said)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": said})


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[int]:
    server, listening = Server(echo), bind("127.0.0.1", 0)
    await server.begin(listening)
    try:
        yield listening.getsockname()[1]
    finally:
        await server.end()


async def talk(port: int, *parts: bytes) -> str:
    """Send the parts one by one and read all that is answered until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0)  # a segment of its own
    async with asyncio.timeout(10):
        answered = await reader.read()
    writer.close()
    return answered.decode()


LAST = b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("offer", OFFERS)
async def test_a_request_that_offers_another_protocol_keeps_its_body(offer: bytes) -> None:
    async with serving() as port:
        request = b"POST /first HTTP/1.1\r\nhost: a\r\n%bcontent-length: 5\r\n\r\nhello" % offer
        answered = await talk(port, request + LAST)
    assert "POST /first" in answered
    assert "hello" in answered
    assert "upgrade" not in answered
    assert "http2-settings" not in answered
    assert "GET /last" in answered  # what follows on the connection is a request again


@pytest.mark.parametrize("offer", OFFERS[:-1])
async def test_an_offer_in_chunks_keeps_its_body(offer: bytes) -> None:
    head = b"POST /first HTTP/1.1\r\nhost: a\r\n%btransfer-encoding: chunked\r\n\r\n" % offer
    async with serving() as port:
        answered = await talk(port, head, b"3\r\nhel\r\n", b"2\r\nlo\r\n0\r\n\r\n", LAST)
    assert "hello" in answered
    assert "GET /last" in answered


async def test_an_offer_may_come_in_any_pieces() -> None:
    request = b"POST /p?a=b HTTP/1.1\r\nhost: a\r\n%bcontent-length: 5\r\n\r\nhello" % OFFERS[0]
    async with serving() as port:
        for cut in range(1, len(request)):
            answered = await talk(port, request[:cut], request[cut:] + LAST)
            assert "POST /p [content-length,host] hello" in answered, cut
            assert "GET /last" in answered, cut


async def test_an_offer_without_a_body_is_answered_as_if_it_were_not_there() -> None:
    request = b"GET /ws HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    async with serving() as port:
        answered = await talk(port, request + LAST)
    assert answered.count("HTTP/1.1 200") == 2


async def test_an_offer_may_ask_to_close_the_connection() -> None:
    request = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close, upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nhi"
    async with serving() as port:
        answered = await talk(port, request)
    assert answered.count("HTTP/1.1 200") == 1
    assert answered.endswith("hi")


@pytest.mark.parametrize(
    "framing",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n",
        b"transfer-encoding: chunked, gzip\r\n",
        b"content-length: +5\r\n",
    ],
)
async def test_an_offer_does_not_make_a_doubtful_body_good(framing: bytes) -> None:
    """Two ways to say where a request ends are two requests to somebody: refused, with an offer or without."""
    async with serving() as port:
        for offer in OFFERS:
            request = b"POST / HTTP/1.1\r\nhost: a\r\n%b%b\r\n0\r\n\r\n" % (offer, framing)
            assert (await talk(port, request)).startswith("HTTP/1.1 400"), offer


async def test_nothing_is_tunnelled() -> None:
    async with serving() as port:
        answered = await talk(port, b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n")
    assert answered.startswith("HTTP/1.1 400")
