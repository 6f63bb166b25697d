"""The process of one function: it starts the servers of its role, and stops them without losing work.

`ROLE=rpc` serves gRPC, `ROLE=events` serves CloudEvents, and `ROLE=all` (for a single machine) serves both over one
store.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from events.broker_token import broker_token
from events.outbox import Outbox
from events.publisher import HttpPublisher
from functions.runtime.app import Function
from functions.runtime.credentials import refuse_weak
from functions.runtime.errors import ServiceError
from functions.runtime.event_metrics import EventMetrics
from functions.runtime.settings import RuntimeSettings, SettingsError, load
from observability import logs, metrics, tracing
from observability.metrics_server import MetricsServer
from observability.service import freeze_heap, run_service

if TYPE_CHECKING:
    from starlette.requests import Request

    from functions.runtime.event_function import EventFunction
    from functions.runtime.http_server import HttpServer
    from functions.runtime.rpc.server import RpcServer

log = logging.getLogger("shop.process")

EXPIRE_BATCH = 1000

S = TypeVar("S", bound=RuntimeSettings)


class ServiceRunner:
    """Runs the servers of a function. `start` and `stop` are called once each, in one event loop.

    After `start`, `http_port`, `grpc_port` and `metrics_port` are the ports in use, or 0 for a server that is absent.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self.settings = function.settings
        self.http_port = 0
        self.grpc_port = 0
        self.metrics_port = 0
        self.ready = False
        self._rpc: RpcServer | None = None
        self._http: HttpServer | None = None
        self._metrics_server = MetricsServer(self.exposition, self.settings.metrics_hold_seconds)
        authorization = broker_token(self.settings.broker_token_file)
        publisher = HttpPublisher(self.settings.broker_url, function.signer, authorization=authorization)
        function.store.on_commit(EventMetrics(function.name, function.event_metrics))
        self.outbox = Outbox(function.store, publisher, function.clock, service=function.name)

    @property
    def http_url(self) -> str:
        """The URL of the HTTP server: events, probes and metrics."""
        return f"http://{self.settings.host}:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        """The address of the gRPC server, host:port."""
        return f"{self.settings.host}:{self.grpc_port}"

    async def start(self) -> None:
        """Run the start hooks, start the servers, and publish outbox rows that a previous process left."""
        self.function.signatures.load()
        for hook in self.function.on_start:
            await hook()
        self.outbox.start()
        if self.settings.role in ("all", "rpc"):
            await self._start_rpc()
        if self.settings.role in ("all", "events") or self.settings.http_port:
            await self._start_http()
        if self.settings.metrics_port is not None:
            self.metrics_port = await self._metrics_server.start(self.settings.host, self.settings.metrics_port)
        self.ready = True
        log.info("ready", extra={"http_port": self.http_port, "grpc_port": self.grpc_port})

    async def _start_rpc(self) -> None:
        from functions.runtime.rpc.server import RpcServer  # import grpc only in this role

        settings, function = self.settings, self.function
        reflection = settings.shop_env == "development"
        self._rpc = RpcServer(function.name, function.services(), function.verifier, reflection)
        self.grpc_port = await self._rpc.start(f"{settings.host}:{self._port('rpc', settings.grpc_port)}")

    async def _start_http(self) -> None:
        from functions.runtime.http_server import HttpServer  # import uvicorn only if it serves

        settings = self.settings
        events = settings.role != "rpc"
        self._http = HttpServer(self.function, self.check, self.sweep, self.exposition, events=events)
        self.http_port = await self._http.start(settings.host, self._port("events", settings.http_port))

    def _port(self, role: str, port: int) -> int:
        """Return the port of the server that serves `role` (`rpc` or `events`).

        That is PORT, which Knative sets, if this process serves only `role`. Otherwise it is `port`.
        """
        given = self.settings.port
        return given if given is not None and self.settings.role == role else port

    async def check(self) -> None:
        """Raise RuntimeError unless the servers run, and ServiceError unless the store answers."""
        if not self.ready:
            raise RuntimeError("not serving")
        await self.function.store.ping()

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the body and content type of /metrics, with the current depth and age of the outbox."""
        try:
            depth, oldest = await self.function.store.outbox_state()
        except ServiceError as error:  # report the other metrics; they matter most while the store is down
            log.warning("outbox_unknown", extra={"reason": error.reason})
        else:
            age = (self.function.clock.now() - oldest).total_seconds() if oldest else 0.0
            metrics.OUTBOX_DEPTH.labels(self.function.name).set(depth)
            metrics.OUTBOX_AGE.labels(self.function.name).set(max(age, 0.0))
        return metrics.exposition(accept)

    async def sweep(self) -> None:
        """Publish outbox rows that are left over, and remove expired entities and idempotency records."""
        await self.outbox.sweep()
        removed = EXPIRE_BATCH
        while removed == EXPIRE_BATCH:
            removed = await self.function.store.expire(self.function.clock.now(), EXPIRE_BATCH)

    async def stop(self) -> None:
        """Stop the servers, finish running work within DRAIN_SECONDS, then close the store."""
        self.ready = False
        grace = self.settings.drain_seconds
        if self._rpc is not None:
            await self._rpc.set_serving(False)
        for hook in self.function.on_drain:
            await hook()
        await asyncio.gather(*(server.stop(grace) for server in (self._rpc, self._http) if server is not None))
        await self.outbox.drain(grace)
        await self._metrics_server.stop()
        for hook in self.function.on_stop:
            await hook()
        await self.function.store.close()


class Process(Generic[S]):
    """The two entry points of a function, made by a domain's main.py.

    `function` is the target of the command functions-framework (`--target function`, signature type `http`, ASGI).
    `main` runs the servers that ROLE selects. Both handle events with the same code.
    """

    def __init__(self, name: str, bootstrap: Callable[[S], Function], settings: type[S]) -> None:
        self.name = name
        self._bootstrap = bootstrap
        self._settings = settings
        self._starting = asyncio.Lock()
        self._events: EventFunction | None = None

        async def function(request: Request) -> Any:
            events = self._events or await self._start_events()
            return await events(request)

        self.function = function

    async def _start_events(self) -> EventFunction:
        """Start at the first request, while later requests wait. After a failure the next request tries again."""
        from functions.runtime.event_function import EventFunction  # imported only to serve events

        async with self._starting:
            if self._events is None:
                settings = load(self._settings, os.environ)
                logs.configure(self.name, settings.log_level)
                refuse_weak(settings)
                if not tracing.enabled():
                    atexit.register(tracing.configure(self.name))  # functions-framework has no hook for its shutdown
                runner = ServiceRunner(self._bootstrap(settings))
                try:
                    for hook in runner.function.on_start:
                        await hook()
                except BaseException:
                    await runner.stop()  # closes the store; the next attempt opens it again
                    raise
                # The tasks of the outbox outlive this request, so they do not belong to its trace.
                Context().run(runner.outbox.start)
                freeze_heap()
                self._events = EventFunction(runner.function, runner.sweep)
            return self._events

    def main(self) -> None:
        """Serve until SIGTERM or SIGINT. Exits with 1 and a message if a setting is wrong."""
        run_service(self.name, self._running, SettingsError)

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        settings = load(self._settings, os.environ)
        refuse_weak(settings)
        runner = ServiceRunner(self._bootstrap(settings))
        try:
            await runner.start()
            yield
        finally:
            with suppress(asyncio.CancelledError):
                await runner.stop()
