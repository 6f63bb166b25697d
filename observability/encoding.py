"""Recorded spans as OTLP, and as the SDK's objects for exporters that want those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2 as pb
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope as SdkScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from observability.spans import Span

SCOPE = "shop"

_KINDS = {name.removeprefix("SPAN_KIND_"): number for name, number in pb.Span.SpanKind.items()}
_FIELDS = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
_FAILED = pb.Status(code=pb.Status.STATUS_CODE_ERROR)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def request(resource: Resource, spans: Sequence[Span]) -> ExportTraceServiceRequest:
    """The request that takes them to a collector."""
    scope = pb.ScopeSpans(scope=InstrumentationScope(name=SCOPE), spans=[_span(span) for span in spans])
    about = resource_pb2.Resource(attributes=_attributes(dict(resource.attributes)))
    return ExportTraceServiceRequest(resource_spans=[pb.ResourceSpans(resource=about, scope_spans=[scope])])


def readable(resource: Resource, span: Span) -> ReadableSpan:
    """The SDK's form."""

    def known(span_id: str) -> SpanContext:
        state = TraceState.from_header([span.tracestate]) if span.tracestate else TraceState()
        return SpanContext(int(span.trace_id, 16), int(span_id, 16), False, _SAMPLED, state)

    return ReadableSpan(
        span.name,
        known(span.span_id),
        known(span.parent_id) if span.parent_id else None,
        resource,
        span.attributes,
        kind=SpanKind[span.kind],
        instrumentation_scope=SdkScope(SCOPE),
        status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
        start_time=span.start,
        end_time=span.end,
    )


def _span(span: Span) -> pb.Span:
    return pb.Span(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        trace_state=span.tracestate,
        flags=1,
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.start,
        end_time_unix_nano=span.end,
        attributes=_attributes(span.attributes),
        status=_FAILED if span.failed else None,
    )


def _attributes(given: dict[str, Any]) -> list[KeyValue]:
    values = [(key, value, _FIELDS.get(type(value))) for key, value in given.items()]
    return [KeyValue(key=key, value=AnyValue(**{field: value})) for key, value, field in values if field]
