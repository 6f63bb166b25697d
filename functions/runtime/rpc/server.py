"""The gRPC door: every method wrapped once, at start, with what all of them need.

One wrapper instead of a chain of `grpc.aio.ServerInterceptor`s: it does correlation, trace, authentication,
deadline, error translation, metric and access line in one coroutine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from functions.runtime import grpc_client, identity
from functions.runtime.access import ANYBODY, Access, UndeclaredRpc
from functions.runtime.app import RpcService
from functions.runtime.errors import Code, ServiceError, exhausted, invalid, unavailable
from functions.runtime.rpc.errors import status_code, trailing_metadata
from functions.runtime.rpc.pending_calls import Arrivals
from functions.runtime.tokens import TokenVerifier
from observability import context, metrics, tracing
from observability.failpoints import ARMED, failpoint
from observability.headers import combine

log = logging.getLogger("shop.rpc")

MAX_MESSAGE_BYTES = 1024 * 1024
RUNNING_CALLS = 2_000
"""Calls at work at a time; a call waits for its message elsewhere (`pending_calls`)."""
_STREAMS_PER_CONNECTION = 2_000  # a gateway sends all its calls over one: 1,000 requests and 500 streams
_OPEN_CALLS = 10_000  # waiting and running together, as a last resort
_NOTICE = 0.25  # seconds: more than a caller needs to hear that it is turned away
_STREAM_CHECK_SECONDS = 15.0
"""How often the token that opened a stream is verified again, so that a revocation ends it within a minute."""
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", _STREAMS_PER_CONNECTION),
    # By default gRPC cancels at random what comes while 1,000 calls wait to be accepted: a flood would hit anybody.
    ("grpc.server.max_pending_requests", _OPEN_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", _OPEN_CALLS),
    ("grpc.so_reuseport", 0),
    ("grpc.max_connection_age_grace_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]
_INTERNAL = ServiceError(Code.INTERNAL, "INTERNAL", "Something went wrong inside the platform.")

Behaviour = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Any]
Wrap = Callable[[str, Behaviour, Access], Callable[..., Any]]


class Door:
    """Wraps the methods of one function's services."""

    def __init__(
        self, function: str, verifier: TokenVerifier, stream_check: float, arrivals: Arrivals
    ) -> None:
        self._function = function
        self._verifier = verifier
        self._stream_check = stream_check
        self._arrivals = arrivals
        self._running = 0
        self.is_closing = False

    def enter(self, call: grpc.aio.ServicerContext[Any, Any]) -> str:
        """Take over what the call carries: context and deadline; returns its authorization."""
        metadata: Any = call.invocation_metadata() or ()
        sent: dict[str, Any] = dict(metadata)
        if len(sent) != len(metadata):
            sent = combine([pair for pair in metadata if isinstance(pair[1], str)], ", ")
        context.enter(
            context.incoming(
                sent.get(context.CORRELATION_HEADER), sent.get("traceparent"), sent.get("tracestate")
            )
        )
        call.set_trailing_metadata(correlation())
        grpc_client.enter_deadline(call.time_remaining())
        return str(sent.get("authorization", ""))

    async def receive(self, call: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """The call's message, None where it is not one of the method.

        Raises INVALID_ARGUMENT, RESOURCE_EXHAUSTED, and UNAVAILABLE (SHUTTING_DOWN), before anything is done, while the
        door closes. The message is read first: gRPC resets a call that is answered before.
        """
        request = await self._arrivals.message(call)
        if self.is_closing:
            raise unavailable(grpc_client.SHUTTING_DOWN, "The service is shutting down.")
        return request

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count a call that is at work. Raises RESOURCE_EXHAUSTED (OVERLOADED) where there are too many."""
        if self._running >= RUNNING_CALLS:
            raise exhausted("OVERLOADED", "The service has too many calls to answer.", retry_after=1.0)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    @asynccontextmanager
    async def while_accepted(self, token: str) -> AsyncIterator[None]:
        """End the block with what `verify` raises once the token is not accepted any more: expired, or revoked."""
        refusal: ServiceError | None = None

        async def watch(until: asyncio.Timeout) -> None:
            nonlocal refusal
            while refusal is None:
                await asyncio.sleep(self._stream_check)
                try:
                    await self._verifier.verify(token)
                except ServiceError as error:
                    refusal = error
            until.reschedule(asyncio.get_running_loop().time())

        watching: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(None) as until:
                if token:
                    watching = asyncio.create_task(watch(until))
                yield
        except TimeoutError:
            if refusal is None:
                raise
            raise refusal from None
        finally:
            if watching is not None:
                watching.cancel()

    async def identify(self, authorization: str, access: Access) -> None:
        """Find out who calls, and whether the method lets them in. Raises UNAUTHENTICATED, PERMISSION_DENIED."""
        scheme, _, token = authorization.partition(" ")
        if not token or scheme.lower() != "bearer":
            access.check(identity.ANONYMOUS)
            return
        try:
            identity.enter(await self._verifier.verify(token))
        except ServiceError as error:
            # Whoever refreshes a session still sends the token that has just expired.
            if not access.anonymous or error.code is not Code.UNAUTHENTICATED:
                raise
        else:
            access.check(identity.current_caller())

    def unary(self, name: str, behaviour: Behaviour, access: Access) -> Callable[..., Awaitable[Any]]:
        """Wrap a method that answers once."""
        line = _Line(self._function, name)

        async def handler(_: Any, call: grpc.aio.ServicerContext[Any, Any]) -> Any:
            start = perf_counter()
            if ARMED:
                call.add_done_callback(_answered)  # type: ignore[arg-type] # the stubs name a class, and it calls it
            try:
                authorization = self.enter(call)
                request = await self.receive(call)
                with self.running(), line.operation.call():
                    await self.identify(authorization, access)
                    _require_message(request)
                    answer = await behaviour(request, call)
                    failpoint("rpc.answer.before")
            except ServiceError as raised:
                error = raised
            except asyncio.CancelledError:
                line.write(start, "CANCELLED")
                raise
            except Exception:
                log.exception("rpc_crashed", extra={"method": line.name})
                error = _INTERNAL
            else:
                line.write(start, "OK")
                return answer
            line.write(start, error.code.value, error.reason)
            return await call.abort(status_code(error), error.message, _trailing(error))

        return handler

    def stream(self, name: str, behaviour: Behaviour, access: Access) -> Callable[..., AsyncIterator[Any]]:
        """Wrap a method that answers with a stream."""
        line = _Line(self._function, name)

        async def handler(_: Any, call: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            start, code, error = perf_counter(), "OK", None
            try:
                authorization = self.enter(call)
                request = await self.receive(call)
                with self.running(), line.operation.call():
                    await self.identify(authorization, access)
                    _require_message(request)
                    async with self.while_accepted(identity.current_caller().token):
                        async for answer in behaviour(request, call):
                            failpoint("rpc.stream.before")
                            yield answer
                            failpoint("rpc.stream.after")
            except ServiceError as raised:
                code, error = raised.code.value, raised
            except (asyncio.CancelledError, GeneratorExit):
                code = "CANCELLED"
                raise
            except Exception:
                log.exception("rpc_crashed", extra={"method": line.name})
                code, error = "INTERNAL", _INTERNAL
            finally:
                line.write(start, code, error.reason if error else "")
            if error is not None:
                await call.abort(status_code(error), error.message, _trailing(error))

        return handler

    def probe(self, name: str, behaviour: Behaviour, access: Access) -> Callable[..., Awaitable[Any]]:
        """Wrap a method of the health service: bounded like the others, without identity, line and metric."""

        async def handler(_: Any, call: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                request = await self._arrivals.message(call)
                _require_message(request)
            except ServiceError as error:
                return await call.abort(status_code(error), error.message, trailing_metadata(error))
            return await behaviour(request, call)

        return handler


def _require_message(request: Any) -> None:
    if request is None:
        raise invalid("The message is not one of this method.", reason="MALFORMED_MESSAGE")


def correlation() -> tuple[tuple[str, str], ...]:
    """What the trailing metadata of every call tells: its correlation id."""
    return ((context.CORRELATION_HEADER, context.current().correlation_id),)


def _trailing(error: ServiceError) -> tuple[tuple[str, str | bytes], ...]:
    return (*correlation(), *trailing_metadata(error))


def _tolerant(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """`parse`, giving None for what is no such message: grpc would answer with the exception's class and text, and that
    before anybody has looked who calls.
    """

    def read(raw: bytes) -> Any:
        try:
            return parse(raw)
        except DecodeError:
            return None

    return read


def _answered(_: object) -> None:
    failpoint("rpc.answer.after")


class _Line:
    """The access line and the metric of one method."""

    def __init__(self, function: str, name: str) -> None:
        self.name = name
        self.operation = tracing.Rpc(name)
        self._function = function
        self._observed: dict[str, metrics.Observed] = {}

    def write(self, start: float, code: str, reason: str = "") -> None:
        took = perf_counter() - start
        observed = self._observed.get(code)
        if observed is None:
            observed = self._observed[code] = metrics.Observed(metrics.RPC, self._function, self.name, code)
        observed.observe(took)
        if log.isEnabledFor(logging.INFO):
            extra = {"method": self.name, "code": code, "duration_ms": round(took * 1000, 3)}
            if reason:
                extra["reason"] = reason
            log.info("rpc", extra=extra)


class _Registrar:
    """Stands in for a server in the generated `add_..._to_server`, to get at the method table."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Not needed: the table below says all."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Keep the table."""
        self.handlers = handlers


def _wrapped(door: Door, service: RpcService, wrap: Wrap | None = None) -> grpc.GenericRpcHandler:
    """The service's methods, each in `wrap` or in the door's wrapper for its kind.

    To gRPC each takes a stream of messages, so that the door receives the one message itself.
    """
    registrar = _Registrar()
    service.add(service.servicer, registrar)
    if undeclared := sorted(registrar.handlers.keys() ^ service.access.keys()):
        raise UndeclaredRpc(f"{service.name}: say in ACCESS (rpc.py) who may call {', '.join(undeclared)}")
    wrapped = {}
    for method, handler in registrar.handlers.items():
        name, access = f"{service.name}/{method}", service.access[method]
        coders = {
            "request_deserializer": _tolerant(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            streamed = (wrap or door.stream)(name, handler.unary_stream, access)
            wrapped[method] = grpc.stream_stream_rpc_method_handler(streamed, **coders)
        else:
            unary = (wrap or door.unary)(name, handler.unary_unary, access)
            wrapped[method] = grpc.stream_unary_rpc_method_handler(unary, **coders)
    return grpc.method_handlers_generic_handler(service.name, wrapped)


class RpcServer:
    """A gRPC server of one function: its services, the standard health service, and reflection where asked
    for.
    """

    def __init__(
        self,
        function: str,
        services: Sequence[RpcService],
        verifier: TokenVerifier,
        reflection: bool,
        stream_check: float = _STREAM_CHECK_SECONDS,
        arrivals: Arrivals | None = None,
    ) -> None:
        from grpc_health.v1 import health_pb2_grpc  # only where the gRPC role runs

        from functions.runtime.rpc import health

        self._server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_OPEN_CALLS)
        self._door = Door(function, verifier, stream_check, arrivals or Arrivals())
        self._server.add_generic_rpc_handlers([_wrapped(self._door, service) for service in services])
        self._health = health.Health()
        probes = RpcService(
            health_pb2_grpc.add_HealthServicer_to_server,
            self._health,
            health.NAME,
            dict.fromkeys(("Check", "List", "Watch"), ANYBODY),
        )
        self._server.add_generic_rpc_handlers([_wrapped(self._door, probes, self._door.probe)])
        self._names = ["", *(service.name for service in services)]
        if reflection:
            from functions.runtime.rpc.reflection import enable_reflection  # development only

            enable_reflection([*self._names[1:], health.NAME], self._server)

    async def start(self, address: str) -> int:
        """Listen at `host:port` (0: any free one); returns the port. Raises RuntimeError when it is taken."""
        port: int = self._server.add_insecure_port(address)
        await self._server.start()
        await self.serving(True)
        return port

    async def serving(self, yes: bool) -> None:
        """What the health service answers."""
        from grpc_health.v1 import health_pb2  # see __init__

        status = health_pb2.HealthCheckResponse
        for name in self._names:
            await self._health.set(name, status.SERVING if yes else status.NOT_SERVING)

    async def stop(self, grace: float) -> None:
        """Take no more calls; those under way get `grace` seconds.

        gRPC cancels what arrives between its stop and the caller's hearing of it, and a caller cannot tell that from a
        call that had begun. So callers are turned away first, and hold their calls back.
        """
        self._door.is_closing = True
        await asyncio.sleep(min(grace, _NOTICE))
        await self._server.stop(grace)
