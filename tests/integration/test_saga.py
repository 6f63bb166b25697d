"""The saga over the real servers, stores and broker, with a manual clock."""

from datetime import timedelta

import msgspec
import pytest

from events.catalog import OrderCancelled, OrderPlaced, StockReserved
from functions.runtime.errors import ServiceError
from functions.runtime.ids import uuid7
from proto.shop.orders.v1 import orders_pb2 as pb
from tests.integration.together import Actor, Together, administrator, comes_to, register

PLACED, RESERVED, CONFIRMED = pb.ORDER_STATUS_PLACED, pb.ORDER_STATUS_RESERVED, pb.ORDER_STATUS_CONFIRMED
CANCELLED = pb.ORDER_STATUS_CANCELLED


async def settles(who: Actor, order_id: str, status: int) -> pb.Order:
    async def seen() -> int:
        return int((await who.order(order_id)).status)

    await comes_to(seen, status)
    return await who.order(order_id)


async def test_an_order_runs_through_all_services(together: Together, customer: Actor, admin: Actor) -> None:
    product = await admin.product(on_hand=3)
    order = await settles(customer, (await customer.place(product, 2)).id, CONFIRMED)

    assert [step.status for step in order.timeline] == [PLACED, RESERVED, CONFIRMED]
    await comes_to(lambda: admin.stock(product), (1, 0))
    assert (await customer.payment(order.id)).captured.amount == 2500


async def test_an_order_that_does_not_move_is_cancelled_by_the_sweep(together: Together, admin: Actor) -> None:
    customer = await register(together)
    product = await admin.product(on_hand=3)
    await together.stop_function("payments")
    order = await settles(customer, (await customer.place(product)).id, RESERVED)
    await together.sweep()
    together.clock.advance(timedelta(minutes=14))
    await together.sweep()
    customer, admin = await sign_in_again(together)
    assert (await customer.order(order.id)).status == RESERVED
    together.clock.advance(timedelta(minutes=2))
    await together.sweep()

    order = await settles(customer, order.id, CANCELLED)
    assert order.timeline[-1].reason == "TIMED_OUT"
    await comes_to(lambda: admin.stock(product), (3, 0))


async def sign_in_again(together: Together) -> tuple[Actor, Actor]:
    """After the access tokens' quarter of an hour."""
    from tests.integration.together import sign_in

    return await sign_in(together, "ada@example.com", "analytical-engine"), await administrator(together)


async def test_events_wait_for_a_broker_that_is_away_and_go_out_when_it_is_back(
    together: Together, customer: Actor, admin: Actor
) -> None:
    product = await admin.product(on_hand=3)
    await together.stop_broker()
    order = await customer.place(product)
    assert (await customer.order(order.id)).status == PLACED
    await together.start_broker()

    await settles(customer, order.id, CONFIRMED)


async def test_events_left_by_a_function_that_ended_go_out_when_it_starts_again(
    together: Together, customer: Actor, admin: Actor
) -> None:
    product = await admin.product(on_hand=3)
    await together.stop_broker()
    order = await customer.place(product)
    await together.stop_function("orders")
    await together.start_broker()
    await together.start_function("orders")

    await settles(customer, order.id, CONFIRMED)


async def test_a_subscriber_that_is_away_gets_its_events_when_it_is_back(
    together: Together, customer: Actor, admin: Actor
) -> None:
    product = await admin.product(on_hand=3)
    await together.stop_function("payments")
    order = await settles(customer, (await customer.place(product)).id, RESERVED)
    await together.start_function("payments")

    await settles(customer, order.id, CONFIRMED)


async def test_an_event_delivered_ten_times_takes_effect_once(
    together: Together, customer: Actor, admin: Actor
) -> None:
    product = await admin.product(on_hand=10)
    order = await settles(customer, (await customer.place(product)).id, CONFIRMED)
    await comes_to(lambda: admin.stock(product), (9, 0))
    line = {"product_id": product, "quantity": 1, "unit_price": {"amount": 1250, "currency": "EUR"}}
    again = msgspec.convert(
        {"order_id": order.id, "user_id": customer.user_id, "lines": [line], "total": line["unit_price"]},
        OrderPlaced,
    )
    event_id = uuid7()
    for _ in range(5):
        assert await together.hear("products", again, event_id) == 204
        assert await together.hear("products", again) == 204

    assert await admin.stock(product) == (9, 0)
    assert (await customer.order(order.id)).status == CONFIRMED


async def test_a_cancel_that_overtakes_the_reservation_leaves_nothing_held_or_charged(
    together: Together, customer: Actor, admin: Actor
) -> None:
    product = await admin.product(on_hand=5)
    await together.stop_function("products")
    order = await place_with_known_price(together, customer, admin, product)
    await customer.call("orders", "CancelOrder", pb.CancelOrderRequest(order_id=order.id))
    await together.start_function("products")

    await settles(customer, order.id, CANCELLED)
    await comes_to(lambda: admin.stock(product), (5, 0))
    cancelled = OrderCancelled(order_id=order.id, user_id=customer.user_id, reason="CUSTOMER_REQUEST")
    reserved = StockReserved(order_id=order.id, expires_at=together.clock.now())
    assert await together.hear("payments", cancelled) == 204
    assert await together.hear("payments", reserved) == 204
    with pytest.raises(ServiceError) as nothing:
        await admin.payment(order.id)
    assert nothing.value.reason == "PAYMENT_NOT_FOUND"


async def place_with_known_price(together: Together, customer: Actor, admin: Actor, product: str) -> pb.Order:
    """Place an order whose events cannot reach products: it answers prices, its event function is closed by the
    broker.
    """
    await together.stop_broker()
    await together.start_function("products")
    order = await customer.place(product)
    await together.stop_function("products")
    await together.start_broker()
    return order


async def test_a_customers_token_opens_no_door_meant_for_services(
    together: Together, customer: Actor, admin: Actor
) -> None:
    product = await admin.product(on_hand=5)
    order = await customer.place(product)
    for who in (customer, admin):
        with pytest.raises(ServiceError) as refused:
            await who.call("orders", "GetPaymentInstruction", pb.GetPaymentInstructionRequest(order_id=order.id))
        assert refused.value.code.value == "PERMISSION_DENIED"
