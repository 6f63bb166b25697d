"""An OTLP receiver (gRPC) that keeps every span."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class Span:
    """The fields of a span that the tests read; ids are hexadecimal, `kind` is OTLP's number."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any] = field(hash=False)
    failed: bool
    text: str = field(repr=False)

    @property
    def signature(self) -> str:
        """Return `service: operation`, as the table of edges writes it."""
        return f"{self.service}: {self.name}"


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Listens on a free port between `start` and `stop`."""

    def __init__(self) -> None:
        self.spans: dict[str, Span] = {}
        self.endpoint = ""
        self._server = grpc.server(ThreadPoolExecutor(2))

    def start(self) -> None:
        add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server  # generated, without types
        add(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.endpoint = f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        self._server.stop(1).wait()

    def Export(self, request: pb.ExportTraceServiceRequest, _: Any) -> pb.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            service = _attributes(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    read = _span(str(service), span)
                    self.spans[read.span_id] = read
        return pb.ExportTraceServiceResponse()

    def of(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace that have arrived so far."""
        return [span for span in list(self.spans.values()) if span.trace_id == trace_id]

    def await_spans(self, found: Callable[[list[Span]], bool], trace_id: str, seconds: float = 20) -> list[Span]:
        """Return the spans of a trace once `found` is true for them; fail after `seconds`."""
        deadline = time.monotonic() + seconds
        while not found(spans := self.of(trace_id)):
            assert time.monotonic() < deadline, "\n".join(sorted(shown(spans))) or f"no span of {trace_id}"
            time.sleep(0.1)
        return spans


def edges(spans: list[Span]) -> set[tuple[str, str]]:
    """Return the pairs of the signatures of parent and child."""
    by_id = {span.span_id: span for span in spans}
    return {(by_id[span.parent_id].signature, span.signature) for span in spans if span.parent_id in by_id}


def shown(spans: list[Span]) -> Iterator[str]:
    """Yield the edges as lines, for the message of a failed test."""
    yield from (f"{parent} -> {child}" for parent, child in edges(spans))


def _span(service: str, span: trace_pb2.Span) -> Span:
    return Span(
        service=service,
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_attributes(span.attributes),
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        text=json.dumps(MessageToDict(span), ensure_ascii=False),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
