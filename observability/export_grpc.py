"""Export spans by OTLP over gRPC, with the SDK's exporter."""

from __future__ import annotations

import os
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

from observability import encoding
from observability.export import OwnSpanExporter
from observability.proxies import proxy_for

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_DEFAULT = "http://localhost:4317"


class GrpcExporter(OwnSpanExporter, OTLPSpanExporter):
    """The SDK's exporter; requests are encoded by `observability.encoding`."""

    def __init__(self) -> None:
        endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), _DEFAULT)
        inside = proxy_for(endpoint if "://" in endpoint else f"http://{endpoint}") is None
        options: Any = (
            (("grpc.enable_http_proxy", 0),) if inside else None
        )  # the SDK's types ask for a string, gRPC for a number
        super().__init__(channel_options=options)

    def _translate_data(self, data: Any) -> Any:
        return encoding.request(self.resource, data)
