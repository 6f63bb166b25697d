"""Spans by OpenTelemetry, when it is asked for; nothing but a check of one variable when it is not.

Tracing is on when OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) or OTEL_TRACES_EXPORTER
is set and OTEL_SDK_DISABLED is not. The SDK is imported only then. The parent of a span is the current
`observability.context.Context`, and within the span the context names the span: the ids in logs, outgoing
calls and outbox rows follow by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from observability import context

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

Kind = Literal["SERVER", "CLIENT", "PRODUCER", "CONSUMER", "INTERNAL"]

_tracer: Tracer | None = None
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
    """Set tracing up for this process if it is asked for; returns what flushes and ends it.

    Sampler, limits, headers and endpoint follow the standard OTEL_* variables; the queue is bounded, and a
    dead or slow exporter drops spans, never work.
    """
    if not requested(environ):
        return lambda: None
    from opentelemetry.sdk.resources import Resource  # the SDK's cost only where it is used
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = environ.get("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create({"service.name": name, "service.namespace": "shop"}))
    provider.add_span_processor(BatchSpanProcessor(_exporter(environ)))
    install(provider)
    return provider.shutdown


def _exporter(environ: Mapping[str, str]) -> Any:
    protocol = environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    )
    if protocol.startswith("http"):
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http

        return over_http.OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as over_grpc

    return over_grpc.OTLPSpanExporter()


def install(provider: TracerProvider | None) -> None:
    """Trace by this provider (None: not at all); also for tests, which look at the spans."""
    global _tracer  # noqa: PLW0603 - one tracer a process, like the root logger
    _tracer = provider.get_tracer("shop") if provider is not None else None


def enabled() -> bool:
    """Whether spans are recorded."""
    return _tracer is not None


def span(
    name: str, kind: Kind, attributes: Mapping[str, Any] | None = None
) -> AbstractContextManager[Span | None]:
    """A span around a block, child of the current context; None with tracing off."""
    if _tracer is None:
        return _OFF
    return _recorded(_tracer, name, kind, attributes)


def client_span(method: Any, address: str) -> AbstractContextManager[Span | None]:
    """A span around an outgoing gRPC call of a stub's `method`."""
    if _tracer is None:
        return _OFF
    path = getattr(method, "_method", b"")
    name = path.decode().lstrip("/") if isinstance(path, bytes) else str(path).lstrip("/")
    service, _, rpc = name.partition("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": rpc, "server.address": address}
    return _recorded(_tracer, name, "CLIENT", attributes)


@contextmanager
def _recorded(tracer: Tracer, name: str, kind: Kind, attributes: Mapping[str, Any] | None) -> Iterator[Span]:
    from opentelemetry.trace import SpanKind, Status, StatusCode  # imported already, by configure

    parent = context.current()
    started = tracer.start_span(name, _parent(parent), SpanKind[kind], dict(attributes or {}))
    own = started.get_span_context()
    traceparent = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
    with context.use(parent._replace(traceparent=traceparent)):
        try:
            yield started
        except Exception as error:
            started.set_status(Status(StatusCode.ERROR, type(error).__name__))
            started.set_attribute("error.type", getattr(error, "reason", type(error).__name__))
            raise
        finally:
            started.end()


def _parent(current: context.Context) -> Any:
    from opentelemetry import trace  # imported already, by configure
    from opentelemetry.context import Context

    if not current.traceparent:
        return Context()
    flags = trace.TraceFlags(int(current.traceparent[-2:], 16))
    state = trace.TraceState.from_header([current.tracestate]) if current.tracestate else trace.TraceState()
    remote = trace.SpanContext(int(current.trace_id, 16), int(current.span_id, 16), True, flags, state)
    return trace.set_span_in_context(trace.NonRecordingSpan(remote), Context())
