"""A wrapper of gRPC methods that adds context, deadline, authentication, error translation, metrics and access log.

Each method is wrapped once, at start. A call then runs in one coroutine; a chain of `grpc.aio.ServerInterceptor`s would
need several.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import grpc
import grpc.aio

from functions.runtime import grpc_client, identity
from functions.runtime.errors import Code, ServiceError, exhausted, invalid, unavailable
from functions.runtime.identity import Access
from functions.runtime.rpc.errors import status_code, trailing_metadata
from functions.runtime.rpc.pending_calls import PendingCalls
from functions.runtime.tokens import TokenVerifier
from observability import context, metrics, tracing
from observability.failpoints import ARMED, failpoint
from observability.headers import combine

log = logging.getLogger("shop.rpc")

RUNNING_CALLS = 2_000
"""The maximum number of calls that run at once, without those that wait for their message (`pending_calls`)."""
STREAM_CHECK_SECONDS = 15.0
"""Seconds between two checks of a stream's token. They are few enough that a revocation ends a stream in a minute."""
_INTERNAL = ServiceError(Code.INTERNAL, "INTERNAL", "Something went wrong inside the platform.")

Method = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Any]


class RunningCalls:
    """Context manager that counts the calls within its block. Raises RESOURCE_EXHAUSTED (OVERLOADED) at the limit."""

    def __init__(self) -> None:
        self._count = 0

    def __enter__(self) -> None:
        if self._count >= RUNNING_CALLS:
            raise exhausted("OVERLOADED", "The service has too many calls to answer.", retry_after=1.0)
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1


class Interceptor:
    """Wraps the methods of one function's services. `stream_check` is the time between token checks, in seconds."""

    def __init__(self, function: str, verifier: TokenVerifier, stream_check: float, pending: PendingCalls) -> None:
        self._function = function
        self._verifier = verifier
        self._stream_check = stream_check
        self._pending = pending
        self.running = RunningCalls()
        self.is_closing = False

    def begin(self, call: grpc.aio.ServicerContext[Any, Any]) -> str:
        """Set context and deadline from the call's metadata. Returns the metadata's `authorization`."""
        metadata: Any = call.invocation_metadata() or ()
        sent: dict[str, Any] = dict(metadata)
        if len(sent) != len(metadata):
            sent = combine([pair for pair in metadata if isinstance(pair[1], str)], ", ")
        context.enter(
            context.incoming(sent.get(context.CORRELATION_HEADER), sent.get("traceparent"), sent.get("tracestate"))
        )
        call.set_trailing_metadata(correlation())
        grpc_client.enter_deadline(call.time_remaining())
        return str(sent.get("authorization", ""))

    async def receive(self, call: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Return the call's message, or None if its bytes cannot be parsed.

        Raises INVALID_ARGUMENT, RESOURCE_EXHAUSTED, and UNAVAILABLE (SHUTTING_DOWN) while the server shuts down. The
        message is read before a refusal, because gRPC resets a call that is answered before its message was read.
        """
        request = await self._pending.receive(call)
        if self.is_closing:
            raise unavailable(grpc_client.SHUTTING_DOWN, "The service is shutting down.")
        return request

    @asynccontextmanager
    async def while_valid(self, token: str) -> AsyncIterator[None]:
        """Cancel the block when the token expires or is revoked, and raise the error of `TokenVerifier.verify`."""
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

    async def authenticate(self, authorization: str, access: Access) -> None:
        """Verify the caller and check the method's access. Raises UNAUTHENTICATED, PERMISSION_DENIED."""
        scheme, _, token = authorization.partition(" ")
        if not token or scheme.lower() != "bearer":
            access.check(identity.ANONYMOUS)
            return
        try:
            identity.enter(await self._verifier.verify(token))
        except ServiceError as error:
            # A client that refreshes its session still sends the expired token.
            if not access.anonymous or error.code is not Code.UNAUTHENTICATED:
                raise
        else:
            access.check(identity.current_caller())

    def unary(self, name: str, method: Method, access: Access) -> Callable[..., Awaitable[Any]]:
        """Wrap a method that returns one response."""
        record = _AccessLog(self._function, name)

        async def handler(_: Any, call: grpc.aio.ServicerContext[Any, Any]) -> Any:
            start = perf_counter()
            if ARMED:
                call.add_done_callback(_after_answer)  # type: ignore[arg-type] # the stubs are wrong
            try:
                authorization = self.begin(call)
                request = await self.receive(call)
                with self.running, record.operation.call():
                    await self.authenticate(authorization, access)
                    _require_message(request)
                    answer = await method(request, call)
                    failpoint("rpc.answer.before")
            except ServiceError as raised:
                error = raised
            except asyncio.CancelledError:
                record.write(start, "CANCELLED")
                raise
            except Exception:
                log.exception("rpc_crashed", extra={"method": record.name})
                error = _INTERNAL
            else:
                record.write(start, "OK")
                return answer
            record.write(start, error.code.value, error.reason)
            return await call.abort(status_code(error), error.message, _trailing(error))

        return handler

    def stream(self, name: str, method: Method, access: Access) -> Callable[..., AsyncIterator[Any]]:
        """Wrap a method that returns a stream of responses."""
        record = _AccessLog(self._function, name)

        async def handler(_: Any, call: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            start, code, error = perf_counter(), "OK", None
            try:
                authorization = self.begin(call)
                request = await self.receive(call)
                with self.running, record.operation.call():
                    await self.authenticate(authorization, access)
                    _require_message(request)
                    async with self.while_valid(identity.current_caller().token):
                        async for answer in method(request, call):
                            failpoint("rpc.stream.before")
                            yield answer
                            failpoint("rpc.stream.after")
            except ServiceError as raised:
                code, error = raised.code.value, raised
            except (asyncio.CancelledError, GeneratorExit):
                code = "CANCELLED"
                raise
            except Exception:
                log.exception("rpc_crashed", extra={"method": record.name})
                code, error = "INTERNAL", _INTERNAL
            finally:
                record.write(start, code, error.reason if error else "")
            if error is not None:
                await call.abort(status_code(error), error.message, _trailing(error))

        return handler

    def probe(self, name: str, method: Method, access: Access) -> Callable[..., Awaitable[Any]]:
        """Wrap a method of the health service. It has the same limits, but no authentication, access log or metric."""

        async def handler(_: Any, call: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                request = await self._pending.receive(call)
                _require_message(request)
            except ServiceError as error:
                return await call.abort(status_code(error), error.message, trailing_metadata(error))
            return await method(request, call)

        return handler


def _require_message(request: Any) -> None:
    if request is None:
        raise invalid("The message is not one of this method.", reason="MALFORMED_MESSAGE")


def correlation() -> tuple[tuple[str, str], ...]:
    """Return the correlation id as trailing metadata, which every call gets."""
    return ((context.CORRELATION_HEADER, context.current().correlation_id),)


def _trailing(error: ServiceError) -> tuple[tuple[str, str | bytes], ...]:
    return (*correlation(), *trailing_metadata(error))


def _after_answer(_: object) -> None:
    failpoint("rpc.answer.after")


class _AccessLog:
    """The access log and the metric of one method."""

    def __init__(self, function: str, name: str) -> None:
        self.name = name
        self.operation = tracing.RpcTemplate(name)
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
