"""The server: uvicorn with bounds on connections, and a shutdown that finishes running requests."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from fastapi import FastAPI

from events.http_server import HttpProtocol, Server, bind
from functions.runtime.credentials import refuse_weak
from functions.runtime.errors import ServiceError
from functions.runtime.networks import network_key
from functions.runtime.settings import SettingsError, load
from gateway.app import create_app
from gateway.app_state import AppState
from gateway.limits import ConcurrencyLimiter
from gateway.settings import Settings
from observability.metrics_server import MetricsServer
from observability.service import run_service

log = logging.getLogger("shop.gateway")

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


_PROBLEM = msgspec.json.encode(
    {
        "type": "/problems/too-many-at-once",
        "title": "Too many at once",
        "status": 503,
        "detail": "Your network address has too many connections.",
        "code": "UNAVAILABLE",
        "reason": "TOO_MANY_AT_ONCE",
        "errors": [],
    }
)
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n"
    b"content-type: application/problem+json\r\ncontent-length: %d\r\n\r\n%b" % (len(_PROBLEM), _PROBLEM)
)
_LEAST_RATE = 8 * 1024
_RESERVED_FILES = 200


class BoundedHttpProtocol(HttpProtocol):
    """uvicorn's protocol with bounds on the size and duration of a request's head, and on slow readers.

    It closes the connection of a client that sends too much before the headers end, sends them too slowly, or reads
    less than 8 KiB a second of a response that does not fit into the buffers.

    A body that arrives after its request was answered is read and discarded, within the same time limit and up to 16
    times the allowed size. If the connection were closed at once, it would be reset before the client has read the
    response.
    """

    open: ConcurrencyLimiter
    max_head_bytes = 0
    max_discarded_bytes = 0
    head_seconds = 0.0
    read_seconds = 0.0
    _in_head = False
    _in_body = False
    _received = 0
    _timer: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None
    _holder: str | None = None

    @classmethod
    def within(cls, settings: Settings) -> type[BoundedHttpProtocol]:
        """Return a class with the bounds of the settings; uvicorn makes the instances."""
        # Behind a proxy, all connections come from the proxy's address.
        proxied = settings.trusted_proxy_hops or settings.client_address_header
        each = settings.max_connections if proxied else settings.max_connections_each
        bounds = {
            "open": ConcurrencyLimiter(settings.max_connections, "TOO_MANY_AT_ONCE", each),
            "max_head_bytes": settings.max_header_bytes,
            "max_discarded_bytes": 16 * settings.max_body_bytes,
            "head_seconds": settings.header_seconds,
            "read_seconds": settings.body_seconds,
        }
        return type("Bounded", (cls,), bounds)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Count the connection, and start the timer of its first request."""
        super().connection_made(transport)
        holder = network_key(self.client[0] if self.client else "")
        try:
            self.open.acquire(holder)
        except ServiceError:
            transport.write(_TOO_MANY)
            transport.close()
            return
        self._holder = holder
        self._timer = self.loop.call_later(self.head_seconds, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection's slot, and stop its timers."""
        if self._holder is not None:
            self.open.release(self._holder)
            self._holder = None
        self._stop_timer()
        self._stop_reading()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start measuring how fast the client reads, since the write buffer is full."""
        super().pause_writing()
        self._await_reading(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Stop measuring, since the client has read."""
        self._stop_reading()
        super().resume_writing()

    def _await_reading(self, unread: int) -> None:
        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if left > unread - _LEAST_RATE * self.read_seconds:
                self.transport.abort()
            else:
                self._await_reading(left)

        self._reading = self.loop.call_later(self.read_seconds, look)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def on_message_begin(self) -> None:
        """Note that a request's head begins."""
        self._in_head, self._in_body, self._received = True, False, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that the head is complete."""
        self._in_head, self._in_body, self._received = False, True, 0
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        self._in_body = False
        self._stop_timer()
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Parse the data, then enforce the limits on an unfinished header block or an unread body."""
        if self._holder is None:
            return  # the connection was refused
        super().data_received(data)
        if self._in_head:
            self._wait_for_more(len(data), self.max_head_bytes, _TOO_LARGE)
        elif self._in_body and self.cycle.response_complete:
            self._wait_for_more(len(data), self.max_discarded_bytes, b"")

    def _wait_for_more(self, received: int, most: int, response: bytes) -> None:
        self._received += received
        if self.transport.is_closing():
            return
        if self._received > most:
            self.transport.write(response)
            self.transport.close()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Server(Server):
    """A uvicorn server that ends the streams before it waits for running requests."""

    def __init__(self, app: FastAPI, gateway: AppState, **options: Any) -> None:
        super().__init__(app, **options)
        self._gateway = gateway

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting requests, and let running requests finish within DRAIN_SECONDS.

        A request that arrives while its connection is being closed gets no response. Therefore the server first gives
        load balancers the time to see that it is not ready, and sends `connection: close` to connected clients.
        """
        self._gateway.draining.set()
        notice, hold = self._gateway.settings.notice_seconds, self._gateway.settings.http_fd is not None
        if not hold:
            await asyncio.sleep(notice)
        for server in self.servers:
            server.close()
        await asyncio.sleep(notice)
        await super().shutdown(sockets)


class GatewayServer:
    """A gateway on a port. Call `start` and `stop` once each, in one event loop."""

    def __init__(self, settings: Settings, app: FastAPI | None = None) -> None:
        self.settings = settings
        self.app = app or create_app(settings)
        self.gateway: AppState = self.app.state.gateway
        self.http_port = 0
        self._metrics_server = MetricsServer(hold=settings.metrics_hold_seconds)
        self._server = _Server(
            self.app,
            self.gateway,
            http=BoundedHttpProtocol.within(settings),
            lifespan="on",
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        )

    @property
    def http_url(self) -> str:
        """Return the base URL."""
        return f"http://{self.settings.host}:{self.http_port}"

    async def start(self) -> None:
        """Listen on the inherited socket HTTP_FD, or else on PORT, or else on HTTP_PORT (0: any free port).

        Raises OSError when the port is taken.
        """
        settings = self.settings
        port = settings.http_port if settings.port is None else settings.port
        fd = settings.http_fd
        listening = bind(settings.host, port) if fd is None else socket.socket(fileno=fd)
        self.http_port = int(listening.getsockname()[1])
        await self._server.begin(listening)
        if settings.metrics_port is not None:
            await self._metrics_server.start(settings.host, settings.metrics_port)
        log.info("ready", extra={"http_port": self.http_port})

    async def stop(self) -> None:
        """Drain and close the server."""
        await self._server.end()
        await self._metrics_server.stop()


@asynccontextmanager
async def _running() -> AsyncIterator[None]:
    settings = load(Settings, os.environ)
    refuse_weak(settings)
    _allow_connections(settings.max_connections)
    server = GatewayServer(settings)
    await server.start()
    yield
    await server.stop()


def _allow_connections(wanted: int) -> None:
    """Raise the limit of open files to what `wanted` connections need, or to the hard limit if that is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = wanted + _RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < enough:
        most = enough if hard == resource.RLIM_INFINITY else min(enough, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main() -> None:
    """Serve until SIGTERM or SIGINT. Exits with code 1 and the reason for invalid settings or a taken port."""
    run_service("gateway", _running, SettingsError, OSError)
