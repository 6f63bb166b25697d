"""Export spans by OTLP over HTTP, with the SDK's exporter."""

from __future__ import annotations

from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult

from observability import encoding
from observability.export import OwnSpanExporter
from observability.proxies import proxy_for


class HttpExporter(OwnSpanExporter, OTLPSpanExporter):
    """The SDK's exporter; requests are encoded by `observability.encoding`."""

    def __init__(self) -> None:
        session = requests.Session()
        super().__init__(session=session)
        session.trust_env = proxy_for(self._endpoint) is not None

    def export(self, spans: Any) -> SpanExportResult:
        """Send a batch."""
        sent = self._client.export(encoding.request(self.resource, spans).SerializeToString())
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE
