"""The broker's spans: each attempt at a delivery, and the way to the dead-letter sink."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from observability import context, tracing


def delivering(
    trigger: str, event: Mapping[str, str], retries: int
) -> AbstractContextManager[tracing.Span | None]:
    """One attempt at the delivery of an event (its attributes) to a trigger's subscriber, after `retries` others."""
    return _sending(f"deliver {trigger}", "deliver", trigger, event, retries)


def burying(trigger: str, event: Mapping[str, str]) -> AbstractContextManager[tracing.Span | None]:
    """The request to the dead-letter sink."""
    return _sending(f"dead-letter {trigger}", "dead-letter", trigger, event, 0)


def _sending(
    name: str, operation: str, trigger: str, event: Mapping[str, str], retries: int
) -> AbstractContextManager[tracing.Span | None]:
    attributes = {
        **tracing.MESSAGING,
        "messaging.operation.type": "send",
        "messaging.operation.name": operation,
        "messaging.destination.name": event["type"],
        "messaging.destination.subscription.name": trigger,
        "messaging.message.id": event["id"],
        tracing.RETRY_COUNT: retries,
    }
    known = context.incoming(event.get("correlationid"), event.get("traceparent"), event.get("tracestate"))
    return tracing.span(name, "PRODUCER", attributes, parent=known)
