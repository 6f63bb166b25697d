"""Metrics of orders."""

from datetime import timedelta

import pytest

from events.catalog import Money, OrderCancelled, OrderConfirmed
from functions.orders.metrics import EVENT_METRICS
from functions.runtime.ids import made_at, new_id
from observability.metrics import REGISTRY

USER = "usr_" + "0" * 32


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_confirmed_order_tells_how_long_its_saga_took() -> None:
    order_id = new_id("ord")
    event = OrderConfirmed(order_id=order_id, user_id=USER, total=Money(1, "EUR"))
    before = value("shop_saga_seconds_sum", outcome="confirmed")
    EVENT_METRICS[OrderConfirmed](event, made_at(order_id) + timedelta(seconds=3))
    assert value("shop_saga_seconds_sum", outcome="confirmed") - before == pytest.approx(3)


@pytest.mark.parametrize(
    ("reason", "label", "of_the_saga"),
    [("OUT_OF_STOCK", "OUT_OF_STOCK", True), ("CHANGED_MY_MIND", "OTHER", False)],
)
def test_a_cancellation_counts_for_the_saga_unless_a_person_asked_for_it(
    reason: str, label: str, of_the_saga: bool
) -> None:
    cancelled, sagas = (
        value("shop_orders_cancelled_total", reason=label),
        value("shop_saga_seconds_count", outcome="cancelled"),
    )
    event = OrderCancelled(order_id=new_id("ord"), user_id=USER, reason=reason)
    EVENT_METRICS[OrderCancelled](event, made_at(event.order_id))
    assert value("shop_orders_cancelled_total", reason=label) == cancelled + 1
    assert value("shop_saga_seconds_count", outcome="cancelled") == sagas + of_the_saga
