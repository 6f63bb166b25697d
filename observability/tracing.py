"""OpenTelemetry spans if traces are requested; otherwise a span costs only a check of one variable.

Tracing is on when OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) or OTEL_TRACES_EXPORTER
is set and OTEL_SDK_DISABLED is not. The SDK is imported only then. The parent of a span is the current
`observability.context.Context`; within the span, the span is the current context, so that logs, outgoing calls and
outbox rows have its ids. Attributes follow OpenTelemetry's semantic conventions. Spans of the OpenTelemetry API join
these traces, see `observability.otel_api`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import Token
from functools import lru_cache
from random import getrandbits
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple

from observability import context

if TYPE_CHECKING:
    from observability.export import Provider

Kind = Literal["SERVER", "CLIENT", "PRODUCER", "CONSUMER", "INTERNAL"]

Attribute = str | int | float | bool

MESSAGING: dict[str, Attribute] = {"messaging.system": "knative"}
RETRY_COUNT = "shop.retry_count"
"""How often the same event was sent before this attempt."""

SCHEMA_URL = "https://opentelemetry.io/schemas/1.45.0"
"""The release of the semantic conventions that the attributes follow."""

_GRPC_CODES = frozenset(
    """
    OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED
    RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS
    UNAUTHENTICATED
    """.split()  # noqa: SIM905 - names are read more easily as a text
)
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})

_STATUS = "rpc.response.status_code"

_tracer: Provider | None = None
_OFF: AbstractContextManager[None] = nullcontext()


def requested(environ: Mapping[str, str]) -> bool:
    """Return whether the standard variables request traces."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
    return any(environ.get(name) for name in names)


def configure(service: str, environ: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """Set up tracing for this process if it is requested; return the function that flushes and ends it in bounded time.

    Sampler, limits, headers and endpoint follow the standard OTEL_* variables. The queue is bounded: if the exporter
    is down or slow, spans are dropped, and no request waits.
    """
    if not requested(environ):
        return lambda: None
    from observability import export  # imported here, because the SDK is needed only for tracing

    provider = export.provide(environ.get("OTEL_SERVICE_NAME") or service, export.exporter(environ))
    install(provider)
    return lambda: export.end(provider)


def install(provider: Provider | None) -> None:
    """Record spans with this provider (None: tracing off); tests use it to see the spans."""
    global _tracer  # noqa: PLW0603 - one tracer a process, like the root logger
    _tracer = provider


def provider() -> Provider | None:
    """Return the installed provider; None if tracing is off."""
    return _tracer


def enabled() -> bool:
    """Return whether tracing is on."""
    return _tracer is not None


class Scope(NamedTuple):
    """An instrumentation scope: the library that starts the spans."""

    name: str
    version: str
    schema_url: str


class SpanTemplate:
    """The parts that many spans share: created once, and encoded once by the exporter.

    `scope` is None for spans of ours.
    """

    __slots__ = ("attributes", "kind", "name", "scope")

    def __init__(
        self,
        name: str,
        kind: Kind,
        attributes: Mapping[str, Attribute] | None = None,
        scope: Scope | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.attributes = dict(attributes or {})
        self.scope = scope

    def span(
        self,
        attributes: dict[str, Attribute] | None = None,
        *,
        harmless: tuple[type[Exception], ...] = (),
        parent: context.Context | None = None,
    ) -> AbstractContextManager[Span | None]:
        """Return a context manager for a span around the block; it yields None if tracing is off.

        It is a child of `parent` (default: the current context) and owns the dict `attributes`. An exception that
        leaves the block marks it as failed, unless it is `harmless`. Messages of exceptions are not recorded: they may
        quote what people wrote.
        """
        if _tracer is None:
            return _OFF
        return Span(_tracer, self, attributes, parent or context.current(), harmless)


class RpcTemplate(SpanTemplate):
    """A gRPC method by its full name `package.Service/Method`: served, or called at `address` (host:port)."""

    __slots__ = ()

    def __init__(self, method: str, address: str = "") -> None:
        attributes: dict[str, Attribute] = {"rpc.system.name": "grpc", "rpc.method": method}
        host, _, port = address.rpartition(":")
        if host:
            attributes["server.address"] = host
        if port.isdigit():
            attributes["server.port"] = int(port)
        super().__init__(method, "CLIENT" if address else "SERVER", attributes)

    def call(self) -> AbstractContextManager[Span | None]:
        """Return a context manager for a span around one call; it yields None if tracing is off."""
        if _tracer is None:
            return _OFF
        return _Call(_tracer, self, {_STATUS: "OK"}, context.current())


@lru_cache(512)
def client_call(path: bytes | str, address: str) -> RpcTemplate:
    """Return the template for calls of a stub's method at `address`."""
    return RpcTemplate((path.decode() if isinstance(path, bytes) else path).lstrip("/"), address)


def mark_failed(span: Span | None, error_type: str) -> None:
    """Mark a span as failed (None: tracing is off); `error_type` has bounded values."""
    if span is None:
        return
    span.failed = True
    span.set_attribute("error.type", error_type)


class Span(context.Context):
    """A span around a block: within the block, it is the current context.

    Times are nanoseconds since 1970; `failed` is its status. The SDK's span costs several times as much.
    """

    __slots__ = (
        "_harmless",
        "_provider",
        "_token",
        "attributes",
        "end_time",
        "failed",
        "parent_id",
        "start_time",
        "template",
    )
    _token: Token[context.Context]

    def __init__(
        self,
        provider: Provider,
        template: SpanTemplate,
        attributes: dict[str, Attribute] | None,
        parent: context.Context,
        harmless: tuple[type[Exception], ...] = (),
    ) -> None:
        self.correlation_id = parent.correlation_id
        self.trace_id = parent.trace_id or getrandbits(128).to_bytes(16).hex()
        self.span_id = getrandbits(64).to_bytes(8).hex()
        self.parent_id = "" if parent.root else parent.span_id
        self.tracestate = parent.tracestate
        self.root = False
        if provider.follows and not parent.root:
            self.sampled, self.flags = parent.sampled, parent.flags
        else:
            self.sampled = provider.sampled(parent, self.trace_id, template.name)
            self.flags = "01" if self.sampled else "00"
        self._provider = provider
        self._harmless = harmless
        self.template = template
        self.attributes = {} if attributes is None else attributes
        self.failed = False
        self.end_time = 0
        self.start_time = time_ns()

    def set_attribute(self, key: str, value: Attribute) -> None:
        """Set an attribute."""
        self.attributes[key] = value

    def __enter__(self) -> Span:
        self._token = context.push(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._judge(error)
        context.pop(self._token)
        del self._token  # the token would keep the task's whole context while the span waits in the queue
        if self.sampled:
            self.end_time = time_ns()
            self._provider.end(self)

    def _judge(self, error: BaseException) -> None:
        if isinstance(error, Exception) and not isinstance(error, self._harmless):
            mark_failed(self, _reason(error))


class _Call(Span):
    """A span of an RPC, with its status code."""

    __slots__ = ()

    def _judge(self, error: BaseException) -> None:
        code = _code(error)
        self.attributes[_STATUS] = code
        # A refusal (NOT_FOUND) is an ordinary response. The conventions treat every code except OK as an error of the
        # client's span. Here a refusal is no error, so that tail sampling keeps faults and not lookups.
        if code in _FAULTS:
            mark_failed(self, _reason(error))


def _code(error: BaseException) -> str:
    """Return the gRPC status code of an error."""
    if not isinstance(error, Exception):
        return "CANCELLED"
    value = getattr(getattr(error, "code", None), "value", None)
    return value if isinstance(value, str) and value in _GRPC_CODES else "INTERNAL"


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, str) else type(error).__name__
