"""Encode spans as OTLP messages.

The exporter's thread encodes a whole batch at a time. To encode each span when it ends, between the steps of an order,
would cost twice as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.trace.v1 import trace_pb2 as pb
from opentelemetry.sdk.resources import Resource

from observability.otel_api import ApiSpan
from observability.tracing import SCHEMA_URL, Scope

if TYPE_CHECKING:
    from observability.tracing import Span, SpanTemplate

SCOPE = "shop"
_OWN = Scope(SCOPE, "", SCHEMA_URL)


def request(resource: Resource, spans: Sequence[Span]) -> ExportTraceServiceRequest:
    """Return the request that exports these spans."""
    message = ExportTraceServiceRequest()
    exported = message.resource_spans.add(schema_url=SCHEMA_URL)
    _add_attributes(exported.resource, resource.attributes)
    scopes: dict[Scope, pb.ScopeSpans] = {}
    for span in spans:
        scope = span.template.scope or _OWN
        if scope not in scopes:
            library = InstrumentationScope(name=scope.name, version=scope.version)
            scopes[scope] = exported.scope_spans.add(scope=library, schema_url=scope.schema_url)
        _encode(scopes[scope].spans.add(), span)
    return message


def _encode(message: pb.Span, span: Span) -> None:
    message.CopyFrom(_common(span.template))
    message.trace_id = bytes.fromhex(span.trace_id)
    message.span_id = bytes.fromhex(span.span_id)
    message.start_time_unix_nano, message.end_time_unix_nano = span.start_time, span.end_time
    _add_attributes(message, span.attributes)
    if span.parent_id:
        message.parent_span_id = bytes.fromhex(span.parent_id)
    if span.tracestate:
        message.trace_state = span.tracestate
    if span.failed:
        message.status.code = pb.Status.STATUS_CODE_ERROR
    if isinstance(span, ApiSpan):
        for name, at, attributes in span.events:
            _add_attributes(message.events.add(name=name, time_unix_nano=at), attributes)
        for other, attributes in span.links:
            link = message.links.add(trace_id=other.trace_id.to_bytes(16), span_id=other.span_id.to_bytes(8))
            _add_attributes(link, attributes)


@lru_cache(2048)
def _common(template: SpanTemplate) -> pb.Span:
    """Return the parts that all spans of a template share."""
    kind = pb.Span.SpanKind.Value(f"SPAN_KIND_{template.kind}")
    message = pb.Span(name=template.name, kind=kind, flags=1)
    _add_attributes(message, template.attributes)
    return message


def _add_attributes(message: Any, attributes: Mapping[str, Any]) -> None:
    add = message.attributes.add
    for key, value in attributes.items():
        if isinstance(value, str) and value.isascii():  # most of them
            add(key=key).value.string_value = value
        else:
            _set(add(key=key).value, value)


def _set(message: AnyValue, value: object) -> None:
    if isinstance(value, str):
        message.string_value = value.encode(errors="replace").decode()
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int):
        message.int_value = value
    elif isinstance(value, float):
        message.double_value = value
    elif isinstance(value, tuple | list):
        for item in value:
            _set(message.array_value.values.add(), item)
    else:
        message.string_value = str(value)
