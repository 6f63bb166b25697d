"""The gRPC server of one function: its services, health and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from functions.runtime.app import RpcService
from functions.runtime.identity import ANYBODY, Access, UndeclaredRpc
from functions.runtime.rpc.interceptor import STREAM_CHECK_SECONDS, Interceptor, Method
from functions.runtime.rpc.pending_calls import PendingCalls
from functions.runtime.tokens import TokenVerifier

MAX_MESSAGE_BYTES = 1024 * 1024
_STREAMS_PER_CONNECTION = 2_000  # a gateway sends all its calls over one connection: 1,000 requests and 500 streams
_OPEN_CALLS = 10_000  # last resort: the maximum number of pending and running calls together
_NOTICE = 0.25  # seconds: enough for callers to learn that the server shuts down
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", _STREAMS_PER_CONNECTION),
    # By default gRPC cancels calls at random while 1,000 wait to be accepted, so a flood would hit every caller.
    ("grpc.server.max_pending_requests", _OPEN_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", _OPEN_CALLS),
    ("grpc.so_reuseport", 0),
    ("grpc.max_connection_age_grace_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]

Wrap = Callable[[str, Method, Access], Callable[..., Any]]


class _Registrar:
    """A stand-in for a server that collects the method table from the generated `add_..._to_server`."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Do nothing, because the method table has all handlers."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Keep the method table."""
        self.handlers = handlers


def _wrapped(interceptor: Interceptor, service: RpcService, wrap: Wrap | None = None) -> grpc.GenericRpcHandler:
    """Wrap each of the service's methods with `wrap`, or by default with the interceptor's `unary` or `stream`.

    Each method is registered as one that takes a stream of messages, so that the interceptor can read the single
    message itself.
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
            streamed = (wrap or interceptor.stream)(name, handler.unary_stream, access)
            wrapped[method] = grpc.stream_stream_rpc_method_handler(streamed, **coders)
        else:
            unary = (wrap or interceptor.unary)(name, handler.unary_unary, access)
            wrapped[method] = grpc.stream_unary_rpc_method_handler(unary, **coders)
    return grpc.method_handlers_generic_handler(service.name, wrapped)


class RpcServer:
    """The gRPC server of one function, with its services, the standard health service, and optionally reflection."""

    def __init__(
        self,
        function: str,
        services: Sequence[RpcService],
        verifier: TokenVerifier,
        reflection: bool,
        stream_check: float = STREAM_CHECK_SECONDS,
        pending: PendingCalls | None = None,
    ) -> None:
        from grpc_health.v1 import health_pb2_grpc  # imported only to serve gRPC

        from functions.runtime.rpc import health

        self._server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_OPEN_CALLS)
        self._interceptor = Interceptor(function, verifier, stream_check, pending or PendingCalls())
        self._server.add_generic_rpc_handlers([_wrapped(self._interceptor, service) for service in services])
        self._health = health.Health()
        probes = RpcService(
            health_pb2_grpc.add_HealthServicer_to_server,
            self._health,
            health.NAME,
            dict.fromkeys(("Check", "List", "Watch"), ANYBODY),
        )
        self._server.add_generic_rpc_handlers([_wrapped(self._interceptor, probes, self._interceptor.probe)])
        self._names = ["", *(service.name for service in services)]
        if reflection:
            from functions.runtime.rpc.reflection import enable_reflection  # imported only in development

            enable_reflection([*self._names[1:], health.NAME], self._server)

    async def start(self, address: str) -> int:
        """Listen on `host:port` (0: any free port) and return the port. Raises RuntimeError if it is in use."""
        port: int = self._server.add_insecure_port(address)
        await self._server.start()
        await self.set_serving(True)
        return port

    async def set_serving(self, serving: bool) -> None:
        """Set the status that the health service reports."""
        from grpc_health.v1 import health_pb2  # see __init__

        status = health_pb2.HealthCheckResponse
        for name in self._names:
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, and let running calls finish within `grace` seconds.

        When gRPC's server stops, it cancels calls that arrive before the caller learns of the stop. The caller cannot
        distinguish them from calls that had begun. So new calls are first refused with SHUTTING_DOWN for a moment,
        which makes callers hold back further calls.
        """
        self._interceptor.is_closing = True
        await asyncio.sleep(min(grace, _NOTICE))
        await self._server.stop(grace)


def _tolerant(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Wrap `parse` so that it returns None for malformed bytes.

    Otherwise gRPC would send the exception's class and text to a caller that is not authenticated yet.
    """

    def read(raw: bytes) -> Any:
        try:
            return parse(raw)
        except DecodeError:
            return None

    return read
