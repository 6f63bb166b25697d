"""Spans as OTLP has them, and as the SDK's objects for exporters that want those.

Protocol Buffers let one message be written as several that are put one after the other: what all spans of an operation
have in common is encoded once; of what is new in each, ids and times have a fixed layout. It is done for a batch at a
time, in the exporter's thread: encoded one by one, between the steps of an order, they cost twice as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.trace.v1 import trace_pb2 as pb
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope as SdkScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from observability.tracing import SCHEMA_URL

if TYPE_CHECKING:
    from observability.tracing import Attribute, Span, SpanTemplate

SCOPE = "shop"

_KEPT = 2048
_SHORT = 120  # bytes of key and text: all lengths in such an attribute are one byte
_FAILED = pb.Span(status=pb.Status(code=pb.Status.STATUS_CODE_ERROR)).SerializeToString()
_SCOPE = pb.ScopeSpans(scope=InstrumentationScope(name=SCOPE), schema_url=SCHEMA_URL).SerializeToString()
_RESOURCE_SCHEMA = pb.ResourceSpans(schema_url=SCHEMA_URL).SerializeToString()
_SPANS = b"\x12"  # the key of ScopeSpans.spans
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
# The fields trace_id, span_id, start_time_unix_nano and end_time_unix_nano, each after its key; and parent_span_id.
_FIXED = Struct("<2s16s2s8sBQBQ")
_PARENT = b"\x22\x08"
_ATTRIBUTES = b"\x4a"


def encode(span: Span) -> bytes:
    """A span that has ended: an opentelemetry.proto.trace.v1.ScopeSpans of it alone."""
    parts = [
        _FIXED.pack(
            b"\x0a\x10",
            bytes.fromhex(span.trace_id),
            b"\x12\x08",
            bytes.fromhex(span.span_id),
            0x39,
            span.start,
            0x41,
            span.end,
        ),
        span.template.encoded or _common(span.template),
        *[_attribute(key, value) for key, value in span.attributes.items()],
    ]
    if span.parent_id:
        parts += (_PARENT, bytes.fromhex(span.parent_id))
    if span.tracestate:
        parts.append(pb.Span(trace_state=span.tracestate).SerializeToString())
    if span.failed:
        parts.append(_FAILED)
    return _field(_SPANS, b"".join(parts))


def request(resource: Resource, spans: Sequence[Span]) -> bytes:
    """The ExportTraceServiceRequest that takes them to a collector.

    Made of bytes: to put messages into another one copies them, which costs as much as all else.
    """
    ours = _field(b"\x12", _SCOPE + b"".join([encode(span) for span in spans]))
    return _field(b"\x0a", _about(resource) + ours + _RESOURCE_SCHEMA)


def readable(resource: Resource, ended: Span) -> ReadableSpan:
    """The SDK's form."""
    (span,) = pb.ScopeSpans.FromString(encode(ended)).spans

    def known(span_id: bytes) -> SpanContext:
        state = TraceState.from_header([span.trace_state]) if span.trace_state else TraceState()
        return SpanContext(int.from_bytes(span.trace_id), int.from_bytes(span_id), False, _SAMPLED, state)

    return ReadableSpan(
        span.name,
        known(span.span_id),
        known(span.parent_span_id) if span.parent_span_id else None,
        resource,
        {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in span.attributes},
        kind=SpanKind[pb.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")],
        instrumentation_scope=SdkScope(SCOPE, schema_url=SCHEMA_URL),
        status=Status(
            StatusCode.ERROR if span.status.code == pb.Status.STATUS_CODE_ERROR else StatusCode.UNSET
        ),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
    )


def _about(resource: Resource) -> bytes:
    known = [
        (key, value) for key, value in resource.attributes.items() if isinstance(value, str | int | float)
    ]
    return _field(b"\x0a", b"".join([_field(b"\x0a", _key_value(key, value)) for key, value in known]))


def _common(template: SpanTemplate) -> bytes:
    kind = pb.Span.SpanKind.Value(f"SPAN_KIND_{template.kind}")
    named = pb.Span(name=template.name, kind=kind, flags=1).SerializeToString()
    template.encoded = named + b"".join([_attribute(*pair) for pair in template.attributes.items()])
    return template.encoded


def _attribute(key: str, value: Attribute) -> bytes:
    if not isinstance(value, str):
        return _number(key, value)
    text, named = value.encode(errors="replace"), _key(key)  # an id, seen but once, which may be anything
    size = len(text)
    if len(named) + size < _SHORT:
        return b"\x4a%c%b\x12%c\x0a%c%b" % (len(named) + size + 4, named, size + 2, size, text)
    return _field(_ATTRIBUTES, _key_value(key, value))


@lru_cache(_KEPT)
def _key(key: str) -> bytes:
    return _field(b"\x0a", key.encode())


@lru_cache(_KEPT, typed=True)  # True and 1 are equal
def _number(key: str, value: Attribute) -> bytes:
    return _field(_ATTRIBUTES, _key_value(key, value))


def _key_value(key: str, value: Attribute) -> bytes:
    if isinstance(value, str):
        known = _field(b"\x0a", value.encode(errors="replace"))
    elif isinstance(value, bool):
        known = AnyValue(bool_value=value).SerializeToString()
    elif isinstance(value, int):
        known = AnyValue(int_value=value).SerializeToString()
    else:
        known = AnyValue(double_value=value).SerializeToString()
    return _key(key) + _field(b"\x12", known)


def _field(key: bytes, data: bytes) -> bytes:
    return b"%b%b%b" % (key, _length(len(data)), data)


@lru_cache(_KEPT)
def _length(number: int) -> bytes:
    """A number as Protocol Buffers write it: seven bits a byte, the lowest first."""
    if number < 128:
        return bytes((number,))
    return bytes((number & 127 | 128,)) + _length(number >> 7)
