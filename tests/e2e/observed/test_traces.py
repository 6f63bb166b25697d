"""One trace from the gateway to the last e-mail, as a real OTLP receiver gets it from the parts' processes."""

import asyncio
from typing import Any

import pytest

from events.catalog import StockReserved
from knative.local.demo.shop import Shop
from observability import tracing
from tests.e2e.observed import stories
from tests.e2e.observed.receiver import Receiver, Span, edges
from tests.e2e.observed.stories import Story
from tests.e2e.platform import LocalPlatform
from tests.edges import CANCELLED, CONFIRMED, DECLINED, PLACED, REFUNDED, SHIPPED, edge, lines

STORIES = {
    "confirmed": (PLACED, CONFIRMED),
    "declined": (PLACED, DECLINED),
    "retried": (PLACED, CONFIRMED),
    "cancelled": (CANCELLED,),
    "refunded": (REFUNDED,),
    "shipped": (SHIPPED,),
}
"""The fixtures of conftest.py, and the edges that their traces must have."""


def complete(receiver: Receiver, trace_id: str, *tables: str) -> list[Span]:
    """The trace, once all of it is there; or what there is of it, for the tests to name what is missing."""
    wanted = {edge(line) for line in lines(*tables)}
    try:
        return receiver.await_spans(lambda spans: wanted <= edges(spans), trace_id, seconds=20)
    except AssertionError:
        return receiver.of(trace_id)


@pytest.fixture(scope="package")
def traces(receiver: Receiver, request: pytest.FixtureRequest) -> dict[str, list[Span]]:
    """The trace of each story."""
    happened: dict[str, Story] = {name: request.getfixturevalue(name) for name in STORIES}
    return {name: complete(receiver, happened[name].trace_id, *tables) for name, tables in STORIES.items()}


@pytest.fixture(scope="package")
def confirmation(traces: dict[str, list[Span]]) -> list[Span]:
    return traces["confirmed"]


@pytest.mark.parametrize(
    ("story", "line"), [(story, line) for story, tables in STORIES.items() for line in lines(*tables)]
)
def test_the_trace_of_an_order_has_the_edge(traces: dict[str, list[Span]], story: str, line: str) -> None:
    assert edge(line) in edges(traces[story])


def test_each_attempt_at_a_delivery_is_a_span_that_counts_the_ones_before(
    traces: dict[str, list[Span]],
) -> None:
    deliveries = [s for s in traces["retried"] if s.name == "deliver shop/payments-events"]
    spans = [s for s in deliveries if s.attributes["messaging.destination.name"] == StockReserved.TYPE]
    assert sorted(span.attributes[tracing.RETRY_COUNT] for span in spans) == list(range(len(spans)))
    assert sorted(span.failed for span in spans) == [False, *[True] * (len(spans) - 1)]
    assert len(spans) > 1


def test_no_span_of_the_trace_has_lost_its_parent(confirmation: list[Span]) -> None:
    known = {span.span_id for span in confirmation}
    assert {span.signature for span in confirmation if span.parent_id not in known} == {"gateway: POST /v1/orders"}


def test_no_span_of_a_confirmed_order_counts_as_a_fault(confirmation: list[Span]) -> None:
    assert [span.signature for span in confirmation if span.failed] == []


def test_no_span_of_a_declined_order_counts_as_a_fault(traces: dict[str, list[Span]]) -> None:
    assert [span.signature for span in traces["declined"] if span.failed] == []


async def test_a_refusal_is_the_callers_failure_and_not_the_servers(
    platform: LocalPlatform, receiver: Receiver
) -> None:
    trace_id = "5" * 32
    async with Shop(platform.base_url) as shop:
        who = await shop.register()
        path, sent = f"/v1/orders/ord_{'0' * 32}", {"traceparent": f"00-{trace_id}-{'5' * 16}-01"}
        status, _, _ = await shop.raw("GET", path, who=who, headers=sent)
    spans = await asyncio.to_thread(receiver.await_spans, lambda found: len(found) >= 3, trace_id)
    assert status == 404
    assert {span.signature: (span.failed, span.attributes.get("rpc.response.status_code")) for span in spans} == {
        "gateway: GET /v1/orders/{order_id}": (False, None),
        "gateway: shop.orders.v1.OrdersService/GetOrder": (False, "NOT_FOUND"),
        "orders: shop.orders.v1.OrdersService/GetOrder": (False, "NOT_FOUND"),
    }


async def test_a_request_without_a_trace_begins_one_that_its_log_lines_name(
    platform: LocalPlatform, receiver: Receiver
) -> None:
    correlation = "observed-without-a-trace"
    async with Shop(platform.base_url) as shop:
        await shop.call("GET", "/v1/products", headers={"x-correlation-id": correlation})

    def lines() -> list[dict[str, Any]]:
        parts = ("gateway", "products")
        found = [line for part in parts for line in platform.log(part)]
        return [line for line in found if line.get("correlation_id") == correlation]

    (trace_id,) = {line["trace_id"] for line in lines()}
    spans = await asyncio.to_thread(receiver.await_spans, lambda found: len(found) >= 3, trace_id)
    assert {span.service for span in spans} == {"gateway", "products"}


async def test_a_caller_who_does_not_sample_is_not_recorded(
    platform: LocalPlatform, receiver: Receiver, confirmed: Story
) -> None:
    story = await stories.order(platform, "tok_ok", sampled=False)
    later = await stories.order(platform, "tok_ok")
    await asyncio.to_thread(
        receiver.await_spans,
        lambda spans: any(span.name == "send order_confirmed" for span in spans),
        later.trace_id,
    )
    assert receiver.of(story.trace_id) == []
