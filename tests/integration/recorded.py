"""What is recorded of a platform that runs in this process."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan

from observability import export
from observability.tests.spans import MemoryExporter
from tests.edges import Edge, edge


class Recorded:
    """The spans of this process."""

    def __init__(self) -> None:
        self.exporter = MemoryExporter()
        self.provider = export.provide("together", self.exporter)

    def named(self, name: str, trace_id: str) -> list[ReadableSpan]:
        """Those of one trace with this name, in the order of their ends."""
        self.provider.force_flush()
        found = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return [s for s in found if s.context is not None and f"{s.context.trace_id:032x}" == trace_id]

    def names(self) -> set[str]:
        """Those of all spans that have ended, in any trace."""
        self.provider.force_flush()
        return {span.name for span in self.exporter.get_finished_spans()}

    def edges(self) -> set[Edge]:
        """(parent, child) of all spans by their names: here all services are one process."""
        self.provider.force_flush()
        spans = {span.context.span_id: span for span in self.exporter.get_finished_spans() if span.context}
        children = [span for span in spans.values() if span.parent and span.parent.span_id in spans]
        return {(spans[span.parent.span_id].name, span.name) for span in children if span.parent}


def operations(line: str) -> Edge:
    """An edge of the table without the services."""
    parent, child = edge(line)
    return parent.partition(": ")[2], child.partition(": ")[2]
