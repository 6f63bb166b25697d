"""HTTP/1.1 client for events: keep-alive connections over asyncio, parsed by httptools.

One POST takes a fifth of the time that general clients need. This matters because posting events is most of the
broker's work and much of each service's. The client adds nothing to a cold start. It follows no redirects, keeps no
cookies, and refuses responses over 1 MiB.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Final, NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from observability.failpoints import failpoint

_MAX_ANSWER: Final = 1 << 20
_MAX_IDLE: Final = 128


class RequestFailed(Exception):
    """There is no response: the connection was refused or broke, or the response was late, too long or not HTTP.

    The message is for people.
    """


class _Stale(RequestFailed):
    """The server closed an idle connection before it sent a response; retry on another connection."""


class Response(NamedTuple):
    """A response; header names are lower case."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


class HttpTarget:
    """A URL with its encoded request line and headers, and the idle connections to its origin."""

    __slots__ = ("host", "idle", "port", "prefix", "tls", "url")

    def __init__(self, url: str, idle: list[_Connection], headers: bytes = b"") -> None:
        parts = urlsplit(url)
        self.url = url
        self.tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.tls else 80)
        self.idle = idle
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = parts.netloc.rpartition("@")[2]
        self.prefix = f"POST {target} HTTP/1.1\r\nhost: {host}\r\n".encode() + headers


class HttpClient:
    """HTTP client with a pool of connections for each origin; `post` is safe to call concurrently."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str], list[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._tls: ssl.SSLContext | None = None

    def target(self, url: str, headers: bytes = b"") -> HttpTarget:
        """Prepare a URL; `headers` (lines that end with CR LF) are sent with each request to it."""
        parts = urlsplit(url)
        return HttpTarget(url, self._idle.setdefault((parts.scheme, parts.netloc), []), headers)

    async def post(self, target: HttpTarget, headers: bytes, body: bytes, timeout: float) -> Response:
        """Send a POST and return the response within `timeout` seconds. Raises RequestFailed."""
        request = b"%b%bcontent-length: %d\r\n\r\n%b" % (target.prefix, headers, len(body), body)
        idle = target.idle
        while idle:
            connection = idle.pop()
            if connection.usable():
                try:
                    return await connection.exchange(request, timeout)
                except _Stale:
                    continue
        loop = asyncio.get_running_loop()
        started = loop.time()
        connection = await self._connect(target, timeout)
        return await connection.exchange(request, max(0.001, timeout - (loop.time() - started)))

    def close(self) -> None:
        """Drop all connections, including those in use."""
        for connection in list(self._open):
            connection.drop()

    async def _connect(self, target: HttpTarget, timeout: float) -> _Connection:
        loop = asyncio.get_running_loop()
        if target.tls and self._tls is None:
            self._tls = ssl.create_default_context()
        try:
            async with asyncio.timeout(timeout):
                _, connection = await loop.create_connection(
                    lambda: _Connection(target.idle, self._open),
                    target.host,
                    target.port,
                    ssl=self._tls if target.tls else None,
                )
        except TimeoutError:
            raise RequestFailed(f"no connection to {target.url} within {timeout:g} s") from None
        except OSError as error:
            raise RequestFailed(f"no connection to {target.url}: {error.strerror or error}") from None
        return connection


class _Connection(asyncio.Protocol):
    """One connection, which carries one request at a time. The `on_...` methods are the parser's callbacks."""

    def __init__(self, idle: list[_Connection], registry: set[_Connection]) -> None:
        self._idle = idle
        self._registry = registry
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Response] | None = None
        self._used = self._heard = self._framed = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0

    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes, timeout: float) -> Response:
        if self._transport is None:
            raise _Stale("the connection was closed")
        answer: asyncio.Future[Response] = self._loop.create_future()
        self._answer = answer
        timer = self._loop.call_later(timeout, self._time_out, timeout)
        self._heard = False
        failpoint("client.write.before")
        self._transport.write(request)
        failpoint("client.write.after")
        try:
            return await answer
        finally:
            timer.cancel()
            if answer.cancelled():
                self.drop()

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _time_out(self, timeout: float) -> None:
        self._fail(RequestFailed(f"no answer within {timeout:g} s"))

    def _fail(self, error: RequestFailed) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)
        self.drop()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class does not declare the type
        self._registry.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._registry.discard(self)
        if self._answer is None:
            return
        if self._heard and not self._framed and exc is None and self._parser.get_status_code():
            self._complete(keep=False)  # without a length the body ends when the connection is closed
        elif self._used and not self._heard:
            self._fail(_Stale("the connection was closed"))
        else:
            self._fail(RequestFailed("the connection was closed before the answer was complete"))

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(RequestFailed(f"the answer is no HTTP: {error}"))
        except httptools.HttpParserUpgrade:
            self._fail(RequestFailed("the answer switches to a protocol that nobody asked for"))

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
        self._headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self._body.append(data)
        self._size += len(data)
        if self._size > _MAX_ANSWER:
            self._fail(RequestFailed(f"the answer is longer than {_MAX_ANSWER} bytes"))

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:  # 100 or 103: the final response follows
            self._headers, self._framed = [], False
            return
        self._complete(keep=self._parser.should_keep_alive())

    def _complete(self, keep: bool) -> None:
        answer, self._answer = self._answer, None
        response = Response(self._parser.get_status_code(), self._headers, b"".join(self._body))
        self._headers, self._body, self._size = [], [], 0
        self._framed = False
        self._used = True
        if keep and answer is not None and len(self._idle) < _MAX_IDLE and self.usable():
            self._idle.append(self)
        else:
            self.drop()
        if answer is not None and not answer.done():
            answer.set_result(response)
