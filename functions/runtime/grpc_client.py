"""The client of another domain's gRPC services. It adds context, deadline and token, retries, and translates errors."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast

from functions.runtime.errors import TRANSIENT, Code, ServiceError, unauthenticated
from functions.runtime.identity import current_caller
from observability import context, tracing
from observability.failpoints import failpoint

if TYPE_CHECKING:
    import grpc.aio

    from functions.runtime.tokens import ServiceTokens

A = TypeVar("A")
T = TypeVar("T")

ATTEMPTS = 3
_SECONDS = 5.0
_LONGEST_HOLD = 1.0
SHUTTING_DOWN = "SHUTTING_DOWN"
"""The reason with which a server that shuts down refuses a call. The call had not begun, so it may be repeated."""
_OPTIONS = [
    ("grpc.enable_http_proxy", 0),  # services call each other without the environment's proxy
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]

Metadata = list[tuple[str, str]]

_deadline: ContextVar[float | None] = ContextVar("shop_deadline", default=None)

deadline = _deadline.get
"""Return the deadline of this task's calls on the clock of time.monotonic, or None if the task has no deadline."""


def enter_deadline(seconds_left: float | None) -> None:
    """Set the deadline of every later call of this task. None removes it; the calls then have only their timeouts."""
    _deadline.set(None if seconds_left is None else time.monotonic() + seconds_left)


def _bounded_by(timeout: float | None) -> float:
    inherited = deadline()
    if inherited is None:
        return time.monotonic() + (_SECONDS if timeout is None else timeout)
    return inherited if timeout is None else min(inherited, time.monotonic() + timeout)


class GrpcClient:
    """A client of the service `name` at `address` (host:port).

    `tokens` issues the tokens of calls that are made as a service; `name` is the audience of these tokens.
    """

    def __init__(self, address: str, tokens: ServiceTokens | None = None, name: str = "") -> None:
        self.address = address
        self._tokens = tokens
        self._name = name
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[Callable[[Any], Any], Any] = {}
        self._shutdown: asyncio.Task[None] | None = None

    @property
    def channel(self) -> grpc.aio.Channel:
        """The shared channel. It is opened at first use."""
        if self._channel is None:
            import grpc.aio  # imported only if a call is made

            self._channel = grpc.aio.insecure_channel(self.address, options=_OPTIONS)
        return self._channel

    def stub(self, make: Callable[[grpc.aio.Channel], T]) -> T:
        """Return the stub of the generated class `make` (`orders_pb2_grpc.OrdersServiceStub`), built at first use."""
        if make not in self._stubs:
            self._stubs[make] = make(self.channel)
        return cast(T, self._stubs[make])

    async def call(
        self,
        method: Callable[..., Awaitable[A]],
        request: Any,
        *,
        as_service: bool = False,
        anonymous: bool = False,
        timeout: float | None = None,
        retry: bool = False,
    ) -> A:
        """Call `method` of a stub and return its response.

        The call ends at the deadline of the task or after `timeout` seconds, whichever is earlier; without either, it
        ends after 5 seconds. The call carries the token of the running request's caller; with `as_service`, the token
        of this service; with `anonymous`, none. `retry`, which is for idempotent methods only, repeats transient
        failures with jitter. Raises ServiceError.
        """
        deadline = _bounded_by(timeout)
        with tracing.client_call(getattr(method, "_method", b""), self.address).call():
            metadata = self.metadata(as_service, anonymous)
            for attempt in range(ATTEMPTS if retry else 1):
                try:
                    return await self._accepted(method, request, deadline, metadata)
                except ServiceError as error:
                    pause = random.uniform(0.5, 1) * 0.1 * 2**attempt
                    if not self._worth_retrying(error, attempt, retry, deadline - time.monotonic() - pause):
                        raise
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _accepted(
        self, method: Callable[..., Awaitable[A]], request: Any, deadline: float, metadata: Metadata
    ) -> A:
        """Make one attempt. If the server is shutting down, wait for its successor and try again."""
        while True:
            if self._shutdown is not None:
                await asyncio.shield(self._shutdown)
            try:
                return await self._attempt(method, request, deadline, metadata)
            except ServiceError as error:
                if error.reason != SHUTTING_DOWN or time.monotonic() >= deadline:
                    raise
            if self._shutdown is None:
                self._shutdown = asyncio.create_task(self._wait_for_shutdown())

    async def _wait_for_shutdown(self) -> None:
        """Wait until the server has closed the connection. After that, calls wait for the server's successor."""
        import grpc  # the channel has imported it already

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_HOLD):
                await self.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        self._shutdown = None

    async def _attempt(
        self, method: Callable[..., Awaitable[A]], request: Any, deadline: float, metadata: Metadata
    ) -> A:
        import grpc.aio  # the channel has imported it already

        from functions.runtime.rpc.errors import from_rpc_error, unreachable

        left = max(deadline - time.monotonic(), 0.001)
        try:
            # Waiting for a connection is safe for any call, because nothing was sent yet. So calls wait for a server
            # that restarts, and do not fail.
            failpoint("peer.call.before")
            answer = await method(request, timeout=left, metadata=metadata, wait_for_ready=True)
            failpoint("peer.call.after")
            return answer
        except grpc.aio.AioRpcError as raw:
            error = from_rpc_error(raw)
            if error.code is Code.DEADLINE_EXCEEDED and self.channel.get_state() is not grpc.ChannelConnectivity.READY:
                raise unreachable() from None
            raise error from None

    @staticmethod
    def _worth_retrying(error: ServiceError, attempt: int, retry: bool, left: float) -> bool:
        transient = error.code in TRANSIENT and error.code is not Code.RESOURCE_EXHAUSTED
        return retry and transient and attempt + 1 < ATTEMPTS and left > 0

    def metadata(self, as_service: bool = False, anonymous: bool = False) -> Metadata:
        """Return the metadata of a call: correlation id, trace context and token (see `call`)."""
        ctx = context.current()
        metadata = []
        if ctx.correlation_id:
            metadata = [(context.CORRELATION_HEADER, ctx.correlation_id), ("traceparent", ctx.traceparent)]
            if ctx.tracestate:
                metadata.append(("tracestate", ctx.tracestate))
        token = "" if anonymous else self._token(as_service)
        if token:
            metadata.append(("authorization", f"Bearer {token}"))
        return metadata

    def _token(self, as_service: bool) -> str:
        if not as_service:
            return current_caller().token
        if self._tokens is None:
            raise unauthenticated("TOKEN_MISSING", "This service has no token of its own.")
        return self._tokens.token(self._name)

    async def close(self) -> None:
        """Close the channel. Running calls may take one more second to finish."""
        if self._shutdown is not None:
            self._shutdown.cancel()
        if self._channel is not None:
            await self._channel.close(grace=1.0)
