"""Spans by OpenTelemetry, when it is asked for; nothing but a check of one variable when it is not.

Tracing is on when OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) or OTEL_TRACES_EXPORTER
is set and OTEL_SDK_DISABLED is not. The SDK is imported only then. The parent of a span is the current
`observability.context.Context`, and within the span the context names the span: the ids in logs, outgoing
calls and outbox rows follow by themselves. Attributes follow OpenTelemetry's semantic conventions.
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
from typing import TYPE_CHECKING, Literal

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
    """Whether the standard variables ask for traces."""
    if (
        environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environ.get("OTEL_TRACES_EXPORTER") == "none"
    ):
        return False
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
    return any(environ.get(name) for name in names)


def configure(service: str, environ: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """Set tracing up for this process if it is asked for; returns what flushes and ends it, in bounded time.

    Sampler, limits, headers and endpoint follow the standard OTEL_* variables; the queue is bounded, and a
    dead or slow exporter drops spans, never work.
    """
    if not requested(environ):
        return lambda: None
    from observability import export  # the SDK's cost only where it is used

    provider = export.provide(environ.get("OTEL_SERVICE_NAME") or service, export.exporter(environ))
    install(provider)
    return lambda: export.end(provider)


def install(provider: Provider | None) -> None:
    """Trace by this provider (None: not at all); also for tests, which look at the spans."""
    global _tracer  # noqa: PLW0603 - one tracer a process, like the root logger
    _tracer = provider


def enabled() -> bool:
    """Whether spans are recorded."""
    return _tracer is not None


class SpanTemplate:
    """What many spans have in common: made once, and encoded once (`encoded` is for the exporter)."""

    __slots__ = ("attributes", "encoded", "kind", "name")

    def __init__(self, name: str, kind: Kind, attributes: Mapping[str, Attribute] | None = None) -> None:
        self.name = name
        self.kind = kind
        self.attributes = dict(attributes or {})
        self.encoded = b""

    def span(
        self,
        attributes: dict[str, Attribute] | None = None,
        *,
        harmless: tuple[type[Exception], ...] = (),
        parent: context.Context | None = None,
    ) -> AbstractContextManager[Span | None]:
        """A span around a block, child of `parent` (the current context), with attributes of its own, which become the
        span's; None with tracing off.

        An exception that leaves the block marks it as failed, unless it is `harmless`. No exception's message gets into
        a span: it may quote what people wrote.
        """
        if _tracer is None:
            return _OFF
        return Span(_tracer, self, attributes, parent or context.current(), harmless)


class RpcTemplate(SpanTemplate):
    """A gRPC method, by its full name `package.Service/Method`, answered or (`address`, host:port) called."""

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
        """A span around one call."""
        if _tracer is None:
            return _OFF
        return _Call(_tracer, self, {_STATUS: "OK"}, context.current())


@lru_cache(512)
def client_call(path: bytes | str, address: str) -> RpcTemplate:
    """The method that a stub calls, at `address`."""
    return RpcTemplate((path.decode() if isinstance(path, bytes) else path).lstrip("/"), address)


def mark_failed(span: Span | None, error_type: str) -> None:
    """Mark a span (None: tracing is off) as failed, for a reason of bounded values."""
    if span is None:
        return
    span.failed = True
    span.set_attribute("error.type", error_type)


class Span(context.Context):
    """One run of an operation, and the block that it lasts for: within it, the current context.

    Times in nanoseconds since 1970; `failed`: its status. Not the SDK's, which costs several times as much to make and
    to end.
    """

    __slots__ = (
        "_harmless",
        "_provider",
        "_token",
        "attributes",
        "end",
        "failed",
        "parent_id",
        "start",
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
        self.end = 0
        self.start = time_ns()

    def set_attribute(self, key: str, value: Attribute) -> None:
        """As OpenTelemetry's."""
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
        del self._token  # it would keep all of the task's context while the span waits
        if self.sampled:
            self.end = time_ns()
            self._provider.end(self)

    def _judge(self, error: BaseException) -> None:
        if isinstance(error, Exception) and not isinstance(error, self._harmless):
            mark_failed(self, _reason(error))


class _Call(Span):
    """The same of an RPC, which has a status."""

    __slots__ = ()

    def _judge(self, error: BaseException) -> None:
        code = _code(error)
        self.attributes[_STATUS] = code
        # A refusal (NOT_FOUND) is an ordinary answer, also on the client's span, where the conventions would
        # count each code but OK as an error: tail sampling is to keep faults, not lookups.
        if code in _FAULTS:
            mark_failed(self, _reason(error))


def _code(error: BaseException) -> str:
    """The gRPC status that an error stands for."""
    if not isinstance(error, Exception):
        return "CANCELLED"
    value = getattr(getattr(error, "code", None), "value", None)
    return value if isinstance(value, str) and value in _GRPC_CODES else "INTERNAL"


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, str) else type(error).__name__
