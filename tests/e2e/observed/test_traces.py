"""One trace from the gateway to the last e-mail, as a real OTLP receiver gets it from the parts' processes."""

import asyncio
from typing import Any

import pytest

from knative.local.demo.shop import Shop
from tests.e2e.observed import stories
from tests.e2e.observed.receiver import Receiver, Span, edges
from tests.e2e.observed.stories import Story
from tests.e2e.platform import LocalPlatform

PLACED = """
gateway: POST /v1/orders -> gateway: shop.orders.v1.Orders/PlaceOrder
gateway: shop.orders.v1.Orders/PlaceOrder -> orders: shop.orders.v1.Orders/PlaceOrder
orders: shop.orders.v1.Orders/PlaceOrder -> orders: shop.products.v1.Products/BatchGetProducts
orders: shop.products.v1.Products/BatchGetProducts -> products: shop.products.v1.Products/BatchGetProducts
orders: shop.orders.v1.Orders/PlaceOrder -> orders: transact DeletedAccount Order
orders: transact DeletedAccount Order -> orders: publish shop.order.placed.v1
orders: publish shop.order.placed.v1 -> broker: deliver shop/products-order-placed
broker: deliver shop/products-order-placed -> products: process shop.order.placed.v1
products: process shop.order.placed.v1 -> products: transact Reservation Stock
products: transact Reservation Stock -> products: publish shop.stock.reserved.v1
products: publish shop.stock.reserved.v1 -> broker: deliver shop/orders-stock-reserved
products: publish shop.stock.reserved.v1 -> broker: deliver shop/payments-stock-reserved
broker: deliver shop/orders-stock-reserved -> orders: process shop.stock.reserved.v1
orders: process shop.stock.reserved.v1 -> orders: transact Order
broker: deliver shop/payments-stock-reserved -> payments: process shop.stock.reserved.v1
payments: process shop.stock.reserved.v1 -> payments: shop.orders.v1.Orders/GetPaymentInstruction
payments: shop.orders.v1.Orders/GetPaymentInstruction -> orders: shop.orders.v1.Orders/GetPaymentInstruction
"""
CONFIRMED = """
payments: transact Payment Refund -> payments: publish shop.payment.captured.v1
payments: publish shop.payment.captured.v1 -> broker: deliver shop/orders-payment-captured
broker: deliver shop/orders-payment-captured -> orders: process shop.payment.captured.v1
orders: transact Order -> orders: publish shop.order.confirmed.v1
orders: publish shop.order.confirmed.v1 -> broker: deliver shop/products-order-confirmed
broker: deliver shop/products-order-confirmed -> products: process shop.order.confirmed.v1
products: process shop.order.confirmed.v1 -> products: transact Reservation Stock
orders: publish shop.order.confirmed.v1 -> broker: deliver shop/notifications-order-confirmed
broker: deliver shop/notifications-order-confirmed -> notifications: process shop.order.confirmed.v1
notifications: process shop.order.confirmed.v1 -> notifications: shop.users.v1.Users/GetContacts
notifications: shop.users.v1.Users/GetContacts -> users: shop.users.v1.Users/GetContacts
notifications: process shop.order.confirmed.v1 -> notifications: send order_confirmed
"""
DECLINED = """
payments: transact Payment Refund -> payments: publish shop.payment.declined.v1
payments: publish shop.payment.declined.v1 -> broker: deliver shop/orders-payment-declined
broker: deliver shop/orders-payment-declined -> orders: process shop.payment.declined.v1
orders: transact Order -> orders: publish shop.order.cancelled.v1
orders: publish shop.order.cancelled.v1 -> broker: deliver shop/products-order-cancelled
broker: deliver shop/products-order-cancelled -> products: process shop.order.cancelled.v1
orders: publish shop.order.cancelled.v1 -> broker: deliver shop/payments-order-cancelled
broker: deliver shop/payments-order-cancelled -> payments: process shop.order.cancelled.v1
orders: publish shop.order.cancelled.v1 -> broker: deliver shop/notifications-order-cancelled
broker: deliver shop/notifications-order-cancelled -> notifications: process shop.order.cancelled.v1
notifications: process shop.order.cancelled.v1 -> notifications: send order_cancelled
"""
WANTED = {
    "order_confirmed": [*filter(None, (PLACED + CONFIRMED).splitlines())],
    "order_cancelled": [*filter(None, (PLACED + DECLINED).splitlines())],
}

RPC = {"rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code"}
HTTP = {"http.request.method", "http.route", "http.response.status_code", "url.scheme"}
MESSAGING = {
    "messaging.system",
    "messaging.operation.type",
    "messaging.operation.name",
    "messaging.destination.name",
    "messaging.message.id",
}
CONVENTIONS = {
    "gateway: POST /v1/orders": HTTP,
    "gateway: shop.orders.v1.Orders/PlaceOrder": {*RPC, "server.address", "server.port"},
    "orders: shop.orders.v1.Orders/PlaceOrder": RPC,
    "orders: transact Order": {"db.system.name", "db.namespace", "db.operation.name", "db.collection.name"},
    "orders: publish shop.order.placed.v1": {*MESSAGING, "shop.retry_count"},
    "broker: deliver shop/products-order-placed": {
        *MESSAGING,
        "messaging.destination.subscription.name",
        "shop.retry_count",
    },
    "products: process shop.order.placed.v1": MESSAGING,
}


def complete(receiver: Receiver, story: Story, mail: str) -> list[Span]:
    """The trace, once the last e-mail is in it; or what there is of it, for the tests to name what is missing."""
    wanted = {tuple(line.split(" -> ")) for line in WANTED[mail]}
    try:
        return receiver.await_spans(lambda spans: wanted <= edges(spans), story.trace_id, seconds=10)
    except AssertionError:
        return receiver.of(story.trace_id)


@pytest.fixture(scope="package")
def confirmation(receiver: Receiver, confirmed: Story) -> list[Span]:
    return complete(receiver, confirmed, "order_confirmed")


@pytest.fixture(scope="package")
def cancellation(receiver: Receiver, declined: Story) -> list[Span]:
    return complete(receiver, declined, "order_cancelled")


@pytest.mark.parametrize("edge", WANTED["order_confirmed"])
def test_the_trace_of_a_confirmed_order_has_the_edge(confirmation: list[Span], edge: str) -> None:
    assert tuple(edge.split(" -> ")) in edges(confirmation)


@pytest.mark.parametrize("edge", WANTED["order_cancelled"])
def test_the_trace_of_a_declined_order_has_the_edge(cancellation: list[Span], edge: str) -> None:
    assert tuple(edge.split(" -> ")) in edges(cancellation)


def test_no_span_of_the_trace_has_lost_its_parent(confirmation: list[Span]) -> None:
    known = {span.span_id for span in confirmation}
    assert {span.signature for span in confirmation if span.parent_id not in known} == {
        "gateway: POST /v1/orders"
    }


@pytest.mark.parametrize("signature", CONVENTIONS)
def test_spans_say_what_the_semantic_conventions_want(confirmation: list[Span], signature: str) -> None:
    span = next(span for span in confirmation if span.signature == signature)
    assert not CONVENTIONS[signature] - set(span.attributes)
    assert not span.failed


def test_no_span_of_a_declined_order_counts_as_a_fault(cancellation: list[Span]) -> None:
    assert [span.signature for span in cancellation if span.failed] == []


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
    assert {span.signature: (span.failed, span.attributes.get("rpc.grpc.status_code")) for span in spans} == {
        "gateway: GET /v1/orders/{order_id}": (False, None),
        "gateway: shop.orders.v1.Orders/GetOrder": (True, 5),
        "orders: shop.orders.v1.Orders/GetOrder": (False, 5),
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
