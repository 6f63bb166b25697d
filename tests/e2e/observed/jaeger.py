"""A real Jaeger instead of the receiver: JAEGER_URL is its query API, JAEGER_OTLP its address for spans (gRPC)."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any

from tests.e2e.observed.receiver import Receiver, Span

_KINDS = ["unspecified", "internal", "server", "client", "producer", "consumer"]


class Jaeger(Receiver):
    """A receiver that reads traces from Jaeger by their ids."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url.rstrip("/")
        self.endpoint = os.environ.get("JAEGER_OTLP", "http://127.0.0.1:4317")

    def start(self) -> None:
        """Do nothing: Jaeger runs already."""

    def stop(self) -> None:
        """Do nothing: Jaeger keeps running."""

    def of(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace that have arrived so far."""
        try:
            with urllib.request.urlopen(f"{self._url}/api/traces/{trace_id}", timeout=10) as answer:  # noqa: S310 - as given
                (trace,) = json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        spans = [_span(span, trace["processes"]) for span in trace["spans"]]
        self.spans |= {span.span_id: span for span in spans}
        return spans


def _span(span: dict[str, Any], processes: dict[str, Any]) -> Span:
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    parents = [ref["spanID"] for ref in span["references"] if ref["refType"] == "CHILD_OF"]
    return Span(
        service=processes[span["processID"]]["serviceName"],
        name=span["operationName"],
        kind=_KINDS.index(tags.pop("span.kind", "unspecified")),
        trace_id=span["traceID"],
        span_id=span["spanID"],
        parent_id=parents[0] if parents else "",
        attributes=tags,
        failed=bool(tags.get("error")),
        text=json.dumps(span, ensure_ascii=False),
    )
