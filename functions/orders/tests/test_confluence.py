"""Any order of arrival and any number of deliveries end in the same state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from functions.orders.domain import FINAL, TRANSITIONS, Order, Status
from functions.orders.service import CancelOrder
from functions.orders.tests.shop import (
    ADA,
    ADMINISTRATOR,
    ORDER_TIMEOUT,
    Shop,
    captured,
    decided,
    declined,
    deleted,
    disputed,
    refund_failed,
    refunded,
    rejected,
    reserved,
)
from functions.runtime.errors import Code, ServiceError

EVENTS: dict[str, Callable[[Order], Any]] = {
    "reserved": reserved,
    "out of stock": rejected,
    "expired": lambda order: rejected(order, "RESERVATION_EXPIRED"),
    "captured": captured,
    "declined": declined,
    "refunded": lambda order: refunded(order, 100),
    "refunded again": lambda order: refunded(order, 50, "2"),
    "refunded whole": lambda order: refunded(order, order.total.amount, "3"),
    "refund failed": lambda order: refund_failed(order, 100),
    "disputed": disputed,
    "dispute won": lambda order: decided(order, "WON"),
    "dispute lost": lambda order: decided(order, "LOST"),
    "deleted": lambda _: deleted(ADA),
}
# The sets of events and commands that one order can see, and the state in which each must end in any order.
SCENARIOS: dict[tuple[str, ...], Status] = {
    ("reserved",): Status.RESERVED,
    ("reserved", "captured"): Status.CONFIRMED,
    ("captured",): Status.CONFIRMED,
    ("out of stock",): Status.CANCELLED,
    ("reserved", "declined"): Status.CANCELLED,
    ("reserved", "expired"): Status.CANCELLED,
    ("reserved", "captured", "expired", "refunded"): Status.CANCELLED,
    ("reserved", "captured", "cancel", "refunded"): Status.CANCELLED,
    ("reserved", "captured", "refunded", "refunded again"): Status.CONFIRMED,
    ("reserved", "cancel"): Status.CANCELLED,
    ("out of stock", "cancel"): Status.CANCELLED,
    ("reserved", "declined", "cancel", "expired"): Status.CANCELLED,
    ("reserved", "captured", "deleted", "refunded"): Status.CANCELLED,
    ("reserved", "captured", "refunded whole"): Status.CANCELLED,
    ("reserved", "captured", "refunded whole", "cancel"): Status.CANCELLED,
    ("reserved", "captured", "refunded", "refund failed"): Status.CONFIRMED,
    ("reserved", "captured", "disputed"): Status.CONFIRMED,
    ("reserved", "captured", "disputed", "dispute won"): Status.CONFIRMED,
    ("reserved", "captured", "disputed", "dispute lost"): Status.CANCELLED,
    ("reserved", "captured", "disputed", "dispute lost", "cancel"): Status.CANCELLED,
}
MOVES = [*EVENTS, "cancel", "sweep", "wait", "ship", "deliver"]


async def do(shop: Shop, order: Order, move: str, event_id: str = "") -> None:
    """Make one move; an illegal transition is allowed to fail."""
    try:
        match move:
            case "cancel":
                await shop.orders.cancel(CancelOrder(order.id), ADA)
            case "ship":
                await shop.orders.ship(order.id, ADMINISTRATOR)
            case "deliver":
                await shop.orders.deliver(order.id, ADMINISTRATOR)
            case "sweep":
                await shop.sweep()
            case "wait":
                shop.clock.advance(ORDER_TIMEOUT / 2)
            case _:
                await shop.receive(EVENTS[move](order), event_id)
    except ServiceError as error:
        assert error.code is Code.FAILED_PRECONDITION  # noqa: PT017 - the only refusal there may be


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[tuple[str, ...], list[str]]:
    """Draw a scenario, and its moves in some order, each once or several times."""
    scenario = draw(st.sampled_from(sorted(SCENARIOS)))
    repeats = draw(st.lists(st.sampled_from(scenario), max_size=5))
    return scenario, draw(st.permutations([*scenario, *repeats]))


@settings(max_examples=150)
@given(deliveries(), st.booleans())
def test_every_order_of_arrival_ends_in_the_same_state(
    drawn: tuple[tuple[str, ...], list[str]], as_duplicates: bool
) -> None:
    """Repeats come as the same event, which the inbox stops, or as new events, which only the state stops."""
    scenario, moves = drawn

    async def runner() -> None:
        shop = Shop()
        order = await shop.place()
        for move in moves:
            await do(shop, order, move, event_id=move if as_duplicates else "")
            shop.clock.advance(timedelta(seconds=1))
        end = await shop.read(order.id)
        assert end.status is SCENARIOS[scenario]
        sums = {
            "refunded": 100,
            "refunded again": 50,
            "refund failed": -100,
            "refunded whole": end.total.amount,
        }
        assert end.refunded.amount == sum(sums.get(move, 0) for move in set(moves))
        assert end.disputed == ("disputed" in scenario and not {"dispute won", "dispute lost"} & set(scenario))
        assert (end.shipping_address is None) == ("deleted" in scenario)

    asyncio.run(runner())


@settings(max_examples=200)
@given(st.lists(st.sampled_from(MOVES), max_size=14))
def test_whatever_happens_the_rules_hold(moves: Sequence[str]) -> None:
    async def runner() -> None:
        shop = Shop()
        order = await shop.place()
        for move in moves:
            before = await shop.read(order.id)
            await do(shop, order, move)
            shop.clock.advance(timedelta(seconds=1))
            _check_step(before, await shop.read(order.id))
        _check_life(shop, await shop.read(order.id))

    asyncio.run(runner())


def _check_step(before: Order, after: Order) -> None:
    assert after.timeline[: len(before.timeline)] == before.timeline
    assert after.version - before.version == (len(after.timeline) > len(before.timeline))
    if before.status in FINAL:
        assert after.status is before.status


def _check_life(shop: Shop, order: Order) -> None:
    path = [entry.status for entry in order.timeline]
    assert path[0] is Status.PLACED
    for earlier, later in pairwise(path):
        assert later is earlier or later in TRANSITIONS[earlier]
    times = [entry.at for entry in order.timeline]
    assert times == sorted(times)
    assert shop.confirmations == (Status.CONFIRMED in path)
    assert len(shop.cancellations) == (order.status is Status.CANCELLED)
    assert bool(order.cancel_reason) == (order.status is Status.CANCELLED)
    shipped = next((entry for entry in order.timeline if entry.status is Status.SHIPPED), None)
    if shipped is not None:
        known = order.timeline[: order.timeline.index(shipped)]
        opened = [entry.reason for entry in known if entry.reason.startswith(("PAYMENT_DISPUTED", "DISPUTE_"))]
        assert opened[-1:] != ["PAYMENT_DISPUTED"], "nothing is shipped while it is disputed"
    if not order.payable:
        assert order.payment_token == ""
