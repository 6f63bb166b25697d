"""Serving these ASGI applications: until a signal in a process of their own, or inside another one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Protocol

import uvicorn
import uvloop

from events.broker.asgi import Receive, Scope, Send
from events.server import HttpProtocol, Server, bind
from observability import garbage

log = logging.getLogger("shop.broker")

_GRACE = 10


class Service(Protocol):
    """What is served: an ASGI application that is started and stopped on the loop that serves it."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


@contextlib.asynccontextmanager
async def serving(service: Service, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve within the running loop; gives the base URL without a trailing slash.

    At the end the service stops first, while it is still reachable for what it has on its way to itself.
    """
    bound = bind(host, port)
    try:
        await service.start()
    except BaseException:
        bound.close()
        raise
    server = Server(_config(service))
    await server.begin(bound)
    try:
        yield f"http://{host}:{bound.getsockname()[1]}"
    finally:
        await service.stop()
        await server.end()


async def run(service: Service, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is told the URL."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(service, host, port) as url:
        ready(url)
        garbage.settle()
        await stop.wait()
        log.info("stopping")


def main(serve: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a process's main coroutine on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def _config(service: Service) -> uvicorn.Config:
    return uvicorn.Config(
        service,
        loop="none",
        http=HttpProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_GRACE,
    )
