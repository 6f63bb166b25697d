"""The services behind the gateway: a typed stub and a shared channel for each domain."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from events.service_tokens import DEAD_LETTERS
from functions.runtime.circuit_breaker import CircuitBreaker
from functions.runtime.clock import SystemClock
from functions.runtime.errors import Code, ServiceError, aborted, invalid, not_found, unavailable
from functions.runtime.factories import service_tokens
from functions.runtime.grpc_client import GrpcClient
from functions.runtime.tokens import ServiceTokens
from gateway.limits import ConcurrencyLimiter
from gateway.settings import Settings
from observability import context
from proto.shop.notifications.v1.notifications_pb2_grpc import NotificationsServiceStub
from proto.shop.orders.v1.orders_pb2_grpc import OrdersServiceStub
from proto.shop.payments.v1.payments_pb2_grpc import PaymentsServiceStub
from proto.shop.products.v1.products_pb2_grpc import ProductsServiceStub
from proto.shop.users.v1.users_pb2_grpc import UsersServiceStub

if TYPE_CHECKING:
    import aiohttp

    from proto.shop.notifications.v1.notifications_pb2_grpc import NotificationsServiceAsyncStub
    from proto.shop.orders.v1.orders_pb2_grpc import OrdersServiceAsyncStub
    from proto.shop.payments.v1.payments_pb2_grpc import PaymentsServiceAsyncStub
    from proto.shop.products.v1.products_pb2_grpc import ProductsServiceAsyncStub
    from proto.shop.users.v1.users_pb2_grpc import UsersServiceAsyncStub

T = TypeVar("T")
A = TypeVar("A")


MAX_CALLS_PER_METHOD = 250
"""A quarter of the default limit of active requests, so that a slow method leaves capacity for the others."""


class ServiceClient(Generic[T]):
    """A client of one domain: `stub` has the RPCs; `read` and `write` call them with the metadata of every hop.

    At most MAX_CALLS_PER_METHOD calls of each method run at a time. After 5 consecutive unanswered calls of a method,
    one call at a time probes whether the service is back, and all others are refused at once (UNAVAILABLE).
    """

    def __init__(self, address: str, stub: Callable[[Any], Any]) -> None:
        self.grpc = GrpcClient(address)
        self._make = stub
        self._stub: T | None = None
        self._limiters: defaultdict[Any, ConcurrencyLimiter] = defaultdict(
            lambda: ConcurrencyLimiter(MAX_CALLS_PER_METHOD, "OVERLOADED")
        )
        self._circuits: defaultdict[Any, CircuitBreaker] = defaultdict(
            lambda: CircuitBreaker(seconds=0, is_failure=_is_unanswered, refuse=_circuit_open)
        )

    @property
    def stub(self) -> T:
        """Return the generated stub. Its channel opens at first use, inside the event loop that uses it."""
        if self._stub is None:
            self._stub = self._make(self.grpc.channel)
        return self._stub

    async def read(self, method: Callable[..., Awaitable[A]], request: Any) -> A:
        """Call a method that may safely be repeated; transient failures are retried within the deadline."""
        return await self._call(method, request, retry=True)

    async def write(self, method: Callable[..., Awaitable[A]], request: Any) -> A:
        """Call a method once, without retries."""
        return await self._call(method, request, retry=False)

    async def _call(self, method: Callable[..., Awaitable[A]], request: Any, *, retry: bool) -> A:
        limiter = self._limiters[method]
        limiter.acquire()
        try:
            return await self._circuits[method].call(lambda: self.grpc.call(method, request, retry=retry))
        finally:
            limiter.release()


def _is_unanswered(error: ServiceError) -> bool:
    return error.code is Code.DEADLINE_EXCEEDED or error.reason == "SERVICE_UNAVAILABLE"


def _circuit_open(_: ServiceError, __: float) -> ServiceError:
    return unavailable("SERVICE_UNAVAILABLE", "A part of the platform does not answer.", retry_after=1.0)


class Clients:
    """The clients of all services that the gateway calls. They connect at the first call, not at the start."""

    def __init__(self, settings: Settings) -> None:
        self.users: ServiceClient[UsersServiceAsyncStub] = ServiceClient(settings.users_address, UsersServiceStub)
        self.products: ServiceClient[ProductsServiceAsyncStub] = ServiceClient(
            settings.products_address, ProductsServiceStub
        )
        self.orders: ServiceClient[OrdersServiceAsyncStub] = ServiceClient(settings.orders_address, OrdersServiceStub)
        self.payments: ServiceClient[PaymentsServiceAsyncStub] = ServiceClient(
            settings.payments_address, PaymentsServiceStub
        )
        self.notifications: ServiceClient[NotificationsServiceAsyncStub] = ServiceClient(
            settings.notifications_address, NotificationsServiceStub
        )
        self.dead_letters = DeadLettersClient(settings.dead_letters_url, settings.deadline_seconds, _token(settings))

    async def close(self) -> None:
        """Close every channel."""
        domains = (self.users, self.products, self.orders, self.payments, self.notifications)
        await asyncio.gather(*(domain.grpc.close() for domain in domains), self.dead_letters.close())


class DeadLettersClient:
    """An HTTP client of the dead-letter sink; `token` returns the gateway's own token for the sink."""

    def __init__(self, url: str, seconds: float, token: Callable[[], str]) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._seconds = seconds
        self._session: aiohttp.ClientSession | None = None

    async def call(
        self, method: str, path: str, query: dict[str, str] | None = None, seconds: float | None = None
    ) -> Any:
        """Send a request, and return the JSON of the response (None for 204) within `seconds`.

        Raises NOT_FOUND, INVALID_ARGUMENT, ABORTED or UNAVAILABLE.
        """
        import aiohttp  # the import takes 60 ms, and only administrators' requests need it

        if self._session is None:
            self._session = aiohttp.ClientSession()
        timeout = aiohttp.ClientTimeout(total=seconds or self._seconds)
        ctx = context.current()
        headers = {
            context.CORRELATION_HEADER: ctx.correlation_id,
            "traceparent": ctx.traceparent,
            "authorization": f"Bearer {self._token()}",
        }
        try:
            async with self._session.request(
                method, self._url + path, params=query, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                _check(response.status)
                return await response.json() if response.status != 204 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            raise _sink_unavailable() from None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def _token(settings: Settings) -> Callable[[], str]:
    """Return a function that makes the gateway's tokens for the sink; its first call reads the signing key."""

    @cache
    def tokens() -> ServiceTokens:
        return service_tokens(settings, "gateway", SystemClock())

    return lambda: tokens().token(DEAD_LETTERS)


def _check(status: int) -> None:
    if status == 404:
        raise not_found("Dead letter", "DEAD_LETTER_NOT_FOUND")
    if status == 400:
        raise invalid("The dead letters cannot be listed like that.")
    if status == 409:
        raise aborted("REPLAY_IN_PROGRESS", "It is being replayed right now.")
    if not 200 <= status < 300:
        raise _sink_unavailable()


def _sink_unavailable() -> ServiceError:
    return unavailable("SERVICE_UNAVAILABLE", "A part of the platform cannot be reached.")
