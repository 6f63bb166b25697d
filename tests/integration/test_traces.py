"""Traces of what does not go straight: an event published by a sweep much later, a delivery that is repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from events import publisher
from events.broker import dispatcher
from events.outbox import Outbox, OutboxRow
from functions.runtime.function import EventFunction
from functions.runtime.peers import Peer
from functions.runtime.rpc import Door
from observability import context, export, tracing
from proto.orders.v1.orders_pb2 import OrderStatus
from tests.edges import CONFIRMED, PLACED, SWEPT, Edge, edge, lines
from tests.integration.together import Actor, Together, comes_to

ORDER_PLACED = "shop.order.placed.v1"


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
    with context.use(context.incoming(None, None)), tracing.Operation("the customer", "CLIENT").span():
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


Break = Callable[[pytest.MonkeyPatch], None]


def hop(module: Any, name: str) -> Callable[[Callable[..., Any]], Break]:
    """A break in propagation: `module.name` replaced by what is decorated, which gets the original first."""

    def decorate(broken: Callable[..., Any]) -> Break:
        return lambda patch: patch.setattr(module, name, partial(broken, getattr(module, name)))

    return decorate


def method(cls: type, name: str) -> Callable[[Callable[..., Any]], Break]:
    """The same of a method."""

    def decorate(broken: Callable[..., Any]) -> Break:
        original = getattr(cls, name)
        return lambda patch: patch.setattr(cls, name, lambda *a, **k: broken(original, *a, **k))

    return decorate


@method(Peer, "metadata")
def rpc_client(original: Any, *given: Any, **named: Any) -> Any:
    return [(key, value) for key, value in original(*given, **named) if key != "traceparent"]


@method(Door, "enter")
def rpc_server(original: Any, door: Door, call: Any) -> Any:
    authorization = original(door, call)
    context.enter(context.incoming(context.current().correlation_id, None))
    return authorization


@method(Outbox, "_publish")
def outbox_row(original: Any, outbox: Outbox, row: OutboxRow) -> Any:
    return original(outbox, row._replace(traceparent=""))


@hop(publisher, "headers")
def published_event(original: Any, row: OutboxRow) -> Any:
    return original(row._replace(traceparent=""))


@hop(dispatcher, "delivering")
def broker(original: Any, trigger: str, event: Mapping[str, str], retries: int) -> Any:
    return original(trigger, {**event, "traceparent": ""}, retries)


@hop(dispatcher, "trace_headers")
def delivery(_: Any, *__: Any) -> bytes:
    return b""


@method(EventFunction, "_deliver")
def subscriber(original: Any, door: EventFunction, event: Any, _: Any) -> Any:
    del event["traceparent"]
    return original(door, event, None)


HOPS: dict[str, Break] = {
    "gRPC client": rpc_client,
    "gRPC server": rpc_server,
    "outbox row": outbox_row,
    "published event": published_event,
    "broker": broker,
    "delivery": delivery,
    "subscriber": subscriber,
}


async def test_the_edges_of_a_trace_are_missed_as_soon_as_any_one_hop_does_not_pass_it_on(
    recorded: Recorded, together: Together, customer: Actor, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = await admin.product(50)
    # Here there is no gateway, and e-mails stay in the store.
    elsewhere = ("gateway: ", "GetContacts", "send ")
    inside = [line for line in lines(PLACED, CONFIRMED) if not any(word in line for word in elsewhere)]
    wanted = {operations(line) for line in inside}

    async def missing() -> set[Edge]:
        recorded.exporter.clear()
        await place(customer, product)

        async def unseen() -> set[str]:
            return {name for both in wanted for name in both} - recorded.names()

        await comes_to(unseen, set())
        return wanted - recorded.edges()

    found = {"nothing": await missing()}
    for name, break_ in HOPS.items():
        with monkeypatch.context() as patch:
            break_(patch)
            found[name] = await missing()
    assert not found.pop("nothing")
    assert [name for name, edges in found.items() if not edges] == []
