"""Spans of a store's transactions. Reads have none, because on SQLite a span would cost more than the read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from functions.runtime.errors import ServiceError
from functions.runtime.store.port import AlreadyDone, Ref
from observability import tracing

_SYSTEMS = {"dynamodb": "aws.dynamodb"}
# These exceptions are not failures of the database: an error of the domain, and a repeated event.
_HARMLESS = (AlreadyDone, ServiceError)


class TransactionSpans:
    """Makes the spans of one store. `scheme` is that of its URL, `name` that of its domain."""

    def __init__(self, scheme: str, name: str) -> None:
        self._system = _SYSTEMS.get(scheme, scheme)
        self._name = name
        self._templates: dict[tuple[object, ...], tracing.SpanTemplate] = {}

    def span(self, operation: str, refs: Sequence[Ref]) -> AbstractContextManager[Any]:
        """Return a context manager for a span around a transaction on these entities."""
        key = (operation, *dict.fromkeys(ref.type for ref in refs))
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = self._template(operation, {ref.type.__name__ for ref in refs})
        return template.span(harmless=_HARMLESS)

    def _template(self, operation: str, classes: set[str]) -> tracing.SpanTemplate:
        name = " ".join([operation, *sorted(classes)])
        attributes: dict[str, tracing.Attribute] = {
            "db.system.name": self._system,
            "db.namespace": self._name,
            "db.operation.name": operation,
        }
        if len(classes) == 1:
            attributes["db.collection.name"] = min(classes)
        else:  # the semantic conventions allow one collection at most
            attributes["db.query.summary"] = name
        return tracing.SpanTemplate(name, "CLIENT", attributes)
