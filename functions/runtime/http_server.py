"""The HTTP server of a function: functions-framework's ASGI app, probes and metrics, on uvicorn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from secrets import token_hex
from types import SimpleNamespace
from typing import Any

from events.asgi import Receive, Scope, Send, header, respond
from events.http_server import Server, bind
from functions.runtime.app import Function
from functions.runtime.errors import ServiceError
from functions.runtime.event_function import EventFunction
from observability.failpoints import failpoint
from observability.metrics_server import Exposition

Check = Callable[[], Awaitable[None]]
_TEXT = b"text/plain; charset=utf-8"


class HttpServer:
    """The HTTP server of one function for probes, metrics and, if `events` is true, events."""

    def __init__(self, function: Function, check: Check, sweep: Check, exposition: Exposition, *, events: bool) -> None:
        self._check = check
        self._exposition = exposition
        self._events = framework_app(EventFunction(function, sweep)) if events else None
        self._server = Server(self._app)

    async def start(self, host: str, port: int) -> int:
        """Listen on `port` (0: any free port) and return the port. Raises OSError if it is in use."""
        listening = bind(host, port)
        await self._server.begin(listening)
        return int(listening.getsockname()[1])

    async def stop(self, grace: float) -> None:
        """Refuse new requests, and let running requests finish within `grace` seconds."""
        self._server.config.timeout_graceful_shutdown = max(1, round(grace))
        await self._server.end()

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["path"]:
            case "/healthz/live":
                await respond(send, 200, b"ok", _TEXT)
            case "/healthz/ready":
                await self._ready(send)
            case "/metrics":
                body, content_type = await self._exposition(header(scope, b"accept"))
                await respond(send, 200, body, content_type.encode())
            case _ if self._events is not None:
                failpoint("event.request.before")
                # Without this header functions-framework makes an id of twelve random numbers, which costs more.
                scope["headers"].append((b"function-execution-id", token_hex(6).encode()))
                await self._events(scope, receive, send)
                failpoint("event.request.after")
            case _:
                await respond(send, 404, b"not found", _TEXT)

    async def _ready(self, send: Send) -> None:
        try:
            await self._check()
        except (ServiceError, RuntimeError):
            await respond(send, 503, b"not ready", _TEXT)
        else:
            await respond(send, 200, b"ok", _TEXT)


def framework_app(events: EventFunction) -> Any:
    """Return the same ASGI app for `events` that the command functions-framework would build."""
    from functions_framework.aio import create_asgi_app_from_module  # imported only to serve events

    async def function(request: Any) -> Any:
        return await events(request)

    module = SimpleNamespace(function=function)
    create: Any = create_asgi_app_from_module  # the library has no type for it
    return create("function", "main.py", "http", module, None)
