"""The broker's spans: each attempt at a delivery, and the way to the dead-letter sink."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from observability import context, tracing

if TYPE_CHECKING:
    from observability.spans import Span


@contextmanager
def delivering(trigger: str, event: Mapping[str, str], retries: int) -> Iterator[Span | None]:
    """One attempt at the delivery of an event (its attributes) to a trigger's subscriber, after `retries` others."""
    with _sending(f"deliver {trigger}", "deliver", trigger, event, retries) as span:
        yield span


@contextmanager
def burying(trigger: str, event: Mapping[str, str]) -> Iterator[Span | None]:
    """The request to the dead-letter sink."""
    with _sending(f"dead-letter {trigger}", "dead-letter", trigger, event, 0) as span:
        yield span


@contextmanager
def _sending(
    name: str, operation: str, trigger: str, event: Mapping[str, str], retries: int
) -> Iterator[Span | None]:
    if not tracing.enabled():
        yield None
        return
    known = context.incoming(event.get("correlationid"), event.get("traceparent"), event.get("tracestate"))
    attributes = {
        **tracing.MESSAGING,
        "messaging.operation.type": "send",
        "messaging.operation.name": operation,
        "messaging.destination.name": event["type"],
        "messaging.destination.subscription.name": trigger,
        "messaging.message.id": event["id"],
        tracing.RETRY_COUNT: retries,
    }
    with context.use(known), tracing.span(name, "PRODUCER", attributes) as span:
        yield span
