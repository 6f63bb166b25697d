"""Committed events in numbers."""

from datetime import UTC, datetime, timedelta
from typing import Any

from events.catalog import OrderCancelled, OrderConfirmed, Payload
from functions.runtime.clock import ManualClock
from functions.runtime.event_metrics import EventMetrics
from functions.runtime.ids import made_at, new_id
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import Changes
from observability import metrics

USER = "usr_" + "0" * 32


def count(service: str, payload: type[Payload]) -> float:
    found = metrics.REGISTRY.get_sample_value("shop_events_committed_total", {"service": service, "type": payload.TYPE})
    return found or 0.0


async def test_an_event_is_counted_by_type_and_measured_when_it_has_committed() -> None:
    clock, seen = ManualClock(), list[tuple[str, datetime]]()
    store = MemoryStore([], clock)
    store.on_commit(EventMetrics("counted", {OrderCancelled: lambda event, at: seen.append((event.order_id, at))}))
    cancelled = OrderCancelled(order_id=new_id("ord"), user_id=USER, reason="TIMED_OUT")

    def change(_: Any) -> Changes[None]:
        return Changes(None, events=[cancelled])

    await store.transact([], change)
    assert count("counted", OrderCancelled) == 1
    assert count("counted", OrderConfirmed) == 0
    assert seen == [(cancelled.order_id, clock.now())]


def test_an_id_tells_when_it_was_made() -> None:
    assert abs(datetime.now(UTC) - made_at(new_id("ord"))) < timedelta(seconds=10)
