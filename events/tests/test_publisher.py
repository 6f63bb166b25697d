"""What HttpPublisher sends, and what it takes for an answer, against a real HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from events.broker_token import BrokerToken, broker_token
from events.cloudevent import parse
from events.publisher import HttpPublisher, NotPublished, dataschema, headers
from events.service_keys import PrivateKey, ServiceKeys
from events.signatures import Signer, Verifier
from events.tests.fakes import TRACE, row

KEY = PrivateKey.generate("orders")
SIGNER = Signer(lambda: KEY)
RAW = row(7)._replace(correlation_id='needs "quoting" 100% ü', tracestate="vendor=1", data=b'{"order_id": "\xc3\xbc"}')


@dataclass
class Inbox:
    """What the server received."""

    url: str = ""
    headers: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def broker(answer: Callable[[], Awaitable[web.Response]]) -> AsyncIterator[Inbox]:
    inbox = Inbox()

    async def take(request: web.Request) -> web.Response:
        inbox.headers.append([(name.lower(), value) for name, value in request.raw_headers])
        inbox.bodies.append(await request.read())
        return await answer()

    app = web.Application()
    app.router.add_route("*", "/shop/default", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    inbox.url = f"http://127.0.0.1:{runner.addresses[0][1]}/shop/default"
    yield inbox
    await runner.cleanup()


def answering(status: int, **options: str) -> Callable[[], Awaitable[web.Response]]:
    async def answer() -> web.Response:
        return web.Response(status=status, headers=options, text="x" * 100)

    return answer


async def test_an_event_arrives_as_a_binary_cloudevent_with_all_its_attributes() -> None:
    async with broker(answering(202)) as inbox:
        publisher = HttpPublisher(inbox.url, SIGNER)
        await publisher.publish(RAW)
        await publisher.close()

    [event] = parse(inbox.headers[0], inbox.bodies[0])
    assert event.data == RAW.data
    known = ServiceKeys({}).with_key("orders", KEY.public)
    assert Verifier(lambda: known).verify(event.attributes, event.data) == RAW.data
    assert event.attributes.pop("signature")
    assert event.attributes == {
        "specversion": "1.0",
        "id": RAW.id,
        "source": "/orders",
        "type": "shop.order.shipped.v1",
        "subject": RAW.subject,
        "time": "2030-01-01T00:00:00Z",
        "dataschema": "urn:shop:order:shipped:v1",
        "datacontenttype": "application/json",
        "partitionkey": RAW.subject,
        "correlationid": 'needs "quoting" 100% ü',
        "traceparent": TRACE,
        "tracestate": "vendor=1",
    }
    assert (b"traceparent", TRACE.encode()) in inbox.headers[0]
    assert (b"tracestate", b"vendor=1") in inbox.headers[0]


def test_header_values_are_percent_encoded_as_the_http_binding_says() -> None:
    assert b"ce-correlationid: needs%20%22quoting%22%20100%25%20%C3%BC\r\n" in headers(RAW, SIGNER)


def test_what_an_event_has_not_is_left_out() -> None:
    bare = headers(row(1)._replace(correlation_id="", traceparent="", tracestate=""), SIGNER)

    assert b"trace" not in bare
    assert b"correlation" not in bare


def test_a_schema_is_named_after_its_type() -> None:
    assert dataschema("shop.order.placed.v1") == "urn:shop:order:placed:v1"


async def test_connections_are_kept() -> None:
    async with broker(answering(202)) as inbox:
        publisher = HttpPublisher(inbox.url, SIGNER)
        await asyncio.gather(*(publisher.publish(row(n)) for n in range(20)))
        await publisher.close()

    assert len(inbox.bodies) == 20


@pytest.mark.parametrize("status", [302, 307, 400, 404, 429, 500, 503])
async def test_any_answer_but_success_means_that_the_event_was_not_published(status: int) -> None:
    async with broker(answering(status, Location="/shop/default")) as inbox:
        publisher = HttpPublisher(inbox.url, SIGNER)
        with pytest.raises(NotPublished, match=str(status)):
            await publisher.publish(RAW)
        await publisher.close()

    assert len(inbox.bodies) == 1


async def test_a_broker_that_is_not_there_means_that_the_event_was_not_published(
    unused_tcp_port: int,
) -> None:
    publisher = HttpPublisher(f"http://127.0.0.1:{unused_tcp_port}/shop/default", SIGNER)
    with pytest.raises(NotPublished):
        await publisher.publish(RAW)
    await publisher.close()


async def test_a_silent_broker_is_waited_for_no_longer_than_allowed() -> None:
    async def silent() -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async with broker(silent) as inbox:
        publisher = HttpPublisher(inbox.url, SIGNER, timeout=0.05)
        with pytest.raises(NotPublished, match="no answer"):
            await publisher.publish(RAW)
        await publisher.close()


async def test_a_renewed_token_authenticates_the_publisher(tmp_path: Path) -> None:
    file, now = tmp_path / "token", 0.0
    file.write_text("first\n")
    token = BrokerToken(str(file), lambda: now)
    async with broker(answering(202)) as inbox:
        publisher = HttpPublisher(inbox.url, SIGNER, authorization=token.header)
        await publisher.publish(row(1))
        file.write_text("second")
        now = 61.0
        await publisher.publish(row(2))
        await publisher.close()
    sent = [dict(each)[b"authorization"] for each in inbox.headers]
    assert sent == [b"Bearer first", b"Bearer second"]


async def test_without_its_token_nothing_is_published(tmp_path: Path) -> None:
    async with broker(answering(202)) as inbox:
        publisher = HttpPublisher(inbox.url, SIGNER, authorization=broker_token(str(tmp_path / "none")))
        with pytest.raises(NotPublished, match="no token"):
            await publisher.publish(row(1))
        await publisher.close()
    assert inbox.bodies == []
