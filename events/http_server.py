"""Serve HTTP/1.1 with uvicorn, inside a running loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol, runtime_checkable

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from events.asgi import Application, Receive, Scope, Send


@runtime_checkable
class Service(Protocol):
    """An ASGI application whose `start` and `stop` run on the loop that serves it."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


@contextlib.asynccontextmanager
async def serving(
    app: Application | Service, host: str = "127.0.0.1", port: int = 0, grace_seconds: int = 10
) -> AsyncIterator[str]:
    """Serve within the running loop; yields the base URL without a trailing slash.

    A `Service` is started before the server. On exit it is stopped before the server, so that requests that it sends
    to itself still succeed.
    """
    listening = bind(host, port)
    service = app if isinstance(app, Service) else None
    try:
        if service is not None:
            await service.start()
    except BaseException:
        listening.close()
        raise
    server = Server(app, date_header=False, timeout_graceful_shutdown=grace_seconds)
    await server.begin(listening)
    try:
        yield f"http://{host}:{listening.getsockname()[1]}"
    finally:
        if service is not None:
            await service.stop()
        await server.end()


class Server(uvicorn.Server):
    """uvicorn without its logs, its signal handlers and the lifespan protocol.

    observability/service.py installs other signal handlers, because uvicorn's raise the signal again at the end.
    `options` are those of uvicorn.Config.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        defaults: dict[str, Any] = {
            "loop": "none",
            "http": HttpProtocol,
            "ws": "none",
            "interface": "asgi3",
            "lifespan": "off",
            "access_log": False,
            "log_config": None,
            "proxy_headers": False,
            "server_header": False,
            "timeout_keep_alive": 75,
        }
        super().__init__(uvicorn.Config(app, **(defaults | options)))
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield

    async def begin(self, listening: socket.socket) -> None:
        """Serve in the background; return once the server accepts requests."""
        self._task = asyncio.create_task(self.serve(sockets=[listening]))
        while not self.started:
            if self._task.done():
                await self._task
            await asyncio.sleep(0.001)

    async def end(self) -> None:
        """Accept no more requests, and let running requests end within the configured grace period."""
        self.should_exit = True
        if self._task is not None:
            await self._task


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, except that it ignores an offer to upgrade (RFC 9110, section 7.8).

    httptools stops after the header block of a request with `Upgrade`, so that the body is lost. curl's --http2 and
    Java's HttpClient send such an offer with the first request of a connection. This class parses the request again
    without the offer. httptools also stops after CONNECT, which is not an offer and is still refused.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._renew_parser()

    def on_headers_complete(self) -> None:
        """Start the request, unless `decline_upgrade` will parse it again without its offer."""
        if not self._is_offer():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request's body, unless `decline_upgrade` will parse the request again without its offer."""
        if not self._is_offer():
            super().on_message_complete()

    def decline_upgrade(self, rest: bytes) -> None:
        """Parse the current request again without its offer, then parse `rest`. Raises HttpParserError."""
        if not self._is_offer():
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in _without_offer(self.headers)]
        self._renew_parser()
        self.parser.feed_data(b"\r\n".join([*lines, b"", rest]))

    def _is_offer(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _renew_parser(self) -> None:
        self.parser = _RequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # uvicorn sets this, too


class _RequestParser(httptools.HttpRequestParser):
    """httptools' parser. When it stops for an upgrade, it passes the unparsed bytes to its protocol."""

    def __init__(self, protocol: HttpProtocol) -> None:
        super().__init__(protocol)
        self._protocol = protocol

    def feed_data(self, data: Any) -> None:
        """Parse bytes. Raises HttpParserError."""
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._protocol.decline_upgrade(data[stop.args[0] :])


def _without_offer(headers: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for name, value in headers:
        if name != b"connection":
            kept = [] if name in _OFFER else [value]
        else:
            options = [option.strip() for option in value.split(b",")]
            kept = [option for option in options if option.lower() not in _OFFER]
        if kept:
            yield name, b", ".join(kept)


_OFFER = (b"upgrade", b"http2-settings")


def bind(host: str, port: int) -> socket.socket:
    """Listen on an IPv4 or IPv6 address (port 0: any free port). Raises OSError if it is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)
