"""Spans by OTLP over gRPC: the SDK's exporter, for spans of ours."""

from __future__ import annotations

from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from observability import encoding
from observability.export import Takes

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Grpc(Takes, OTLPSpanExporter):
    """See the module."""

    def _initialize_channel_and_stub(self) -> None:
        super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call] # the SDK's own
        self._client: Any = _Bytes(self._channel)

    def _translate_data(self, data: Any) -> Any:
        return encoding.request(self.resource, data)


class _Bytes:
    """A TraceServiceStub whose requests are serialized."""

    def __init__(self, channel: Any) -> None:
        answer = ExportTraceServiceResponse.FromString
        self.Export = channel.unary_unary(_EXPORT, response_deserializer=answer)
