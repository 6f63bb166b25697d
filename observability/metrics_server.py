"""Serve `GET /metrics` on a port of its own (METRICS_PORT), the same in every pod.

It uses asyncio directly, because importing a web server would make the cold start of ROLE=rpc a tenth longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import httptools
from prometheus_client import CollectorRegistry

from observability import metrics

log = logging.getLogger("shop.metrics")

_HEAD_SECONDS: Final = 5.0
_MAX_HEAD: Final = 16 * 1024

Exposition = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Returns the metrics for an Accept header: text and content type."""


async def exposition(accept: str, registry: CollectorRegistry = metrics.REGISTRY) -> tuple[bytes, str]:
    """Return the metrics of a registry, by default of the process's."""
    return metrics.exposition(accept, registry)


class MetricsServer:
    """Serves metrics from `start` to `stop`; call each once, in one event loop.

    `hold` is how many seconds `stop` waits at most for a final scrape.
    """

    def __init__(self, exposition: Exposition = exposition, hold: float = 0.0) -> None:
        self._exposition = exposition
        self._hold = hold
        self._server: asyncio.Server | None = None
        self._scraped: asyncio.Event | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen (0: any free port); returns the port. Raises OSError when it is taken."""
        self._server = await asyncio.start_server(self._converse, host, port, limit=_MAX_HEAD)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """If metrics were scraped before, wait up to `hold` seconds for a final scrape. Then close."""
        if self._server is None:
            return
        if self._scraped is not None:
            self._scraped = asyncio.Event()
            log.info("held_for_scrape", extra={"seconds": self._hold})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._scraped.wait(), self._hold)
        self._server.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await self._answer(head))
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # too slow, disconnected, or too long: close without a response
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> bytes:
        request = _Request()
        try:
            parser = httptools.HttpRequestParser(request)
            with contextlib.suppress(
                httptools.HttpParserUpgrade
            ):  # the offer to upgrade is ignored; the header block is parsed
                parser.feed_data(head)
            asked = parser.get_method() + b" " + request.url
        except httptools.HttpParserError:
            return _response(b"400 Bad Request", b"this is no HTTP/1.1", "text/plain")
        if asked != b"GET /metrics":
            return _response(b"404 Not Found", b"there is only GET /metrics", "text/plain")
        body, content_type = await self._exposition(request.accept)
        if self._scraped is None:
            self._scraped = asyncio.Event()
        self._scraped.set()
        return _response(b"200 OK", body, content_type)


class _Request:
    """Collects URL and Accept header from httptools' callbacks."""

    url = b""
    accept = ""

    def on_url(self, url: bytes) -> None:
        self.url = url.partition(b"?")[0]

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"accept":
            self.accept += ("," if self.accept else "") + value.decode("latin-1")


def _response(status: bytes, body: bytes, content_type: str) -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return head % (status, content_type.encode(), len(body)) + body
