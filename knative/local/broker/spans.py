"""Spans of the broker: one for each delivery attempt, and one for each request to the dead-letter sink."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import lru_cache

from observability import context, tracing


def delivery_span(trigger: str, event: Mapping[str, str], retries: int) -> AbstractContextManager[tracing.Span | None]:
    """Return the span of an attempt to deliver an event (its attributes) to a subscriber, after `retries` others."""
    return _sending(_operation("deliver", trigger, event["type"]), event, retries)


def dead_letter_span(trigger: str, event: Mapping[str, str]) -> AbstractContextManager[tracing.Span | None]:
    """Return the span of a request to the dead-letter sink."""
    return _sending(_operation("dead-letter", trigger, event["type"]), event, 0)


def _sending(
    operation: tracing.SpanTemplate, event: Mapping[str, str], retries: int
) -> AbstractContextManager[tracing.Span | None]:
    known = context.incoming(event.get("correlationid"), event.get("traceparent"), event.get("tracestate"))
    return operation.span({"messaging.message.id": event["id"], tracing.RETRY_COUNT: retries}, parent=known)


@lru_cache(1024)  # bounded, because clients choose the types
def _operation(name: str, trigger: str, type_: str) -> tracing.SpanTemplate:
    attributes: dict[str, tracing.Attribute] = {
        **tracing.MESSAGING,
        "messaging.operation.type": "send",
        "messaging.operation.name": name,
        "messaging.destination.name": type_,
        "messaging.destination.subscription.name": trigger,
    }
    return tracing.SpanTemplate(f"{name} {trigger}", "PRODUCER", attributes)
