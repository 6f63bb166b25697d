"""The metrics' own port: one path, bounded requests, and an end that waits for the last scrape."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from observability.metrics_server import MetricsServer


@pytest.fixture
async def endpoint() -> AsyncIterator[MetricsServer]:
    endpoint = MetricsServer(hold=0)
    yield endpoint
    await endpoint.stop()


async def get(port: int, path: str = "/metrics", accept: str = "*/*") -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        return await client.get(path, headers={"accept": accept})


async def test_it_answers_in_the_format_that_is_asked_for(endpoint: MetricsServer) -> None:
    port = await endpoint.start("127.0.0.1", 0)
    plain = await get(port)
    wanted = await get(port, accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert plain.headers["content-type"].startswith("text/plain")
    assert wanted.headers["content-type"].startswith("application/openmetrics-text")
    assert wanted.text.endswith("# EOF\n")
    assert "# TYPE shop_trace_spans" in plain.text


@pytest.mark.parametrize("path", ["/", "/healthz/ready", "/metrics/more"])
async def test_there_is_nothing_else(endpoint: MetricsServer, path: str) -> None:
    assert (await get(await endpoint.start("127.0.0.1", 0), path)).status_code == 404


@pytest.mark.parametrize(
    ("sent", "answer"), [(b"nonsense\r\n\r\n", b"HTTP/1.1 400"), (b"GET /metrics?" + b"x" * 70_000, b"")]
)
async def test_what_is_no_request_gets_nothing(endpoint: MetricsServer, sent: bytes, answer: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", await endpoint.start("127.0.0.1", 0))
    writer.write(sent)
    got = b""
    with contextlib.suppress(ConnectionResetError):  # closed with more to read
        got = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert got[:12] == answer


async def test_an_offer_of_another_protocol_is_ignored(endpoint: MetricsServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", await endpoint.start("127.0.0.1", 0))
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
    got = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert got.startswith(b"HTTP/1.1 200 OK")


async def test_the_end_waits_for_one_more_scrape() -> None:
    endpoint = MetricsServer(hold=60)
    port = await endpoint.start("127.0.0.1", 0)
    await get(port)
    ending = asyncio.create_task(endpoint.stop())
    _, unfinished = await asyncio.wait({ending}, timeout=0.3)
    assert unfinished
    assert (await get(port)).status_code == 200
    await asyncio.wait_for(ending, 10)
    with pytest.raises(httpx.ConnectError):
        await get(port)


async def test_the_end_does_not_wait_where_nobody_scrapes() -> None:
    endpoint = MetricsServer(hold=60)
    await endpoint.start("127.0.0.1", 0)
    start = time.monotonic()
    await endpoint.stop()
    assert time.monotonic() - start < 30
