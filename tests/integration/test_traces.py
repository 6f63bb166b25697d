"""Traces of what does not go straight: an event published by a sweep much later, a delivery that is repeated."""

from __future__ import annotations

from datetime import timedelta

from opentelemetry.sdk.trace import ReadableSpan

from events.catalog import OrderConfirmed
from observability import context, tracing
from proto.shop.orders.v1.orders_pb2 import OrderStatus
from tests.edges import SWEPT, Edge, lines
from tests.integration.recorded import Recorded, operations
from tests.integration.together import Actor, Together, comes_to

ORDER_PLACED = "shop.order.placed.v1"


def retries(spans: list[ReadableSpan]) -> list[object]:
    """The retry count of each."""
    return [(span.attributes or {})[tracing.RETRY_COUNT] for span in spans]


async def place(customer: Actor, product: str) -> str:
    """Order one piece within a trace of its own; the trace's id."""
    with context.use(context.incoming(None, None)), tracing.SpanTemplate("the customer", "CLIENT").span():
        await customer.place(product)
        return context.current().trace_id


async def test_an_event_that_a_sweep_publishes_belongs_to_the_trace_of_its_order(
    recorded: Recorded, together: Together, customer: Actor, admin: Actor
) -> None:
    product = await admin.product(5)
    await together.stop_broker()
    trace_id = await place(customer, product)

    async def given_up() -> bool:
        return len(recorded.named(f"publish {ORDER_PLACED}", trace_id)) >= 4

    await comes_to(given_up, True)
    assert retries(recorded.named(f"publish {ORDER_PLACED}", trace_id))[:4] == [0, 1, 2, 3]
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

    def deliveries() -> list[ReadableSpan]:
        spans = recorded.named("deliver shop/notifications-events", trace_id)
        return [s for s in spans if (s.attributes or {})["messaging.destination.name"] == OrderConfirmed.TYPE]

    async def tried() -> bool:
        return len(deliveries()) >= 2

    await comes_to(tried, True)
    await together.start_function("notifications")

    async def delivered() -> bool:
        return bool(recorded.named("process shop.order.confirmed.v1", trace_id)) and any(
            span.status.is_ok or span.status.is_unset for span in deliveries()
        )

    await comes_to(delivered, True, seconds=30)
    attempts = deliveries()
    assert retries(attempts) == list(range(len(attempts)))
    assert [span.status.is_unset for span in attempts] == [False] * (len(attempts) - 1) + [True]


async def test_what_a_sweep_cancels_goes_on_in_the_trace_of_the_sweep(
    recorded: Recorded, together: Together, customer: Actor, admin: Actor
) -> None:
    product = await admin.product(5)
    await together.stop_function("payments")
    order = await customer.place(product)

    async def status() -> str:
        return OrderStatus.Name((await customer.order(order.id)).status)

    await comes_to(status, "ORDER_STATUS_RESERVED")
    together.clock.advance(timedelta(minutes=16))
    await together.sweep()
    wanted = {operations(line) for line in lines(SWEPT)}

    async def missing() -> set[Edge]:
        return wanted - recorded.edges()

    await comes_to(missing, set())
