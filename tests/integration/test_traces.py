"""Traces of what does not go straight: an event published by a sweep much later, a delivery that is repeated."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from observability import context, export, tracing
from tests.integration.together import Actor, Together, comes_to

PLACED = "shop.order.placed.v1"


class Recorded:
    """The spans of this process."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = export.provide("together", self.exporter)

    def named(self, name: str, trace_id: str) -> list[ReadableSpan]:
        """Those of one trace with this name, in the order of their ends."""
        self.provider.force_flush()
        found = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return [s for s in found if s.context is not None and f"{s.context.trace_id:032x}" == trace_id]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded()
    tracing.install(recorded.provider)
    yield recorded
    tracing.install(None)
    recorded.provider.shutdown()


def retries(spans: list[ReadableSpan]) -> list[object]:
    """The retry count of each."""
    return [(span.attributes or {})[tracing.RETRY_COUNT] for span in spans]


async def place(customer: Actor, product: str) -> str:
    """Order one piece within a trace of its own; the trace's id."""
    with context.use(context.incoming(None, None)), tracing.span("the customer", "CLIENT"):
        await customer.place(product)
        return context.current().trace_id


async def test_an_event_that_a_sweep_publishes_belongs_to_the_trace_of_its_order(
    recorded: Recorded, together: Together, customer: Actor, admin: Actor
) -> None:
    product = await admin.product(5)
    await together.stop_broker()
    trace_id = await place(customer, product)

    async def given_up() -> bool:
        return len(recorded.named(f"publish {PLACED}", trace_id)) >= 4

    await comes_to(given_up, True)
    assert retries(recorded.named(f"publish {PLACED}", trace_id))[:4] == [0, 1, 2, 3]
    await together.start_broker()
    together.clock.advance(timedelta(minutes=5))
    await together.sweep()

    async def told() -> bool:
        return bool(recorded.named("process shop.order.confirmed.v1", trace_id))

    await comes_to(told, True)


async def test_each_attempt_at_a_delivery_is_a_span_that_counts_the_ones_before(
    recorded: Recorded, together: Together, customer: Actor, admin: Actor
) -> None:
    product = await admin.product(5)
    await together.stop_function("notifications")
    trace_id = await place(customer, product)
    deliveries = "deliver shop/notifications-order-confirmed"

    async def tried() -> bool:
        return len(recorded.named(deliveries, trace_id)) >= 2

    await comes_to(tried, True)
    await together.start_function("notifications")

    async def delivered() -> bool:
        return bool(recorded.named("process shop.order.confirmed.v1", trace_id)) and any(
            span.status.is_ok or span.status.is_unset for span in recorded.named(deliveries, trace_id)
        )

    await comes_to(delivered, True, seconds=30)
    attempts = recorded.named(deliveries, trace_id)
    assert retries(attempts) == list(range(len(attempts)))
    assert [span.status.is_unset for span in attempts] == [False] * (len(attempts) - 1) + [True]
