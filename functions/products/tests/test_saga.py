"""Stock adds up for any order of arrival and any number of deliveries."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from events.catalog import Payload
from functions.products.stock.domain import State
from functions.products.store import MAPPINGS
from functions.products.tests.shop import RESERVATION_TIME, Shop, cancelled, confirmed, placed
from functions.runtime.clock import ManualClock
from functions.runtime.ids import new_id
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import AlreadyDone

Step = Literal["placed", "confirmed", "cancelled", "expire"]
STEPS: st.SearchStrategy[Step] = st.sampled_from(["placed", "confirmed", "cancelled", "expire"])
EVENTS: st.SearchStrategy[Step] = st.sampled_from(["placed", "confirmed", "cancelled"])
ON_HAND = 10


class Scenario:
    """Some orders for two products, of which there are not enough for all."""

    def __init__(self, orders: int) -> None:
        clock = ManualClock()
        self.shop = Shop(MemoryStore(MAPPINGS, clock, lost_races=1), clock)
        self.orders = [new_id("ord") for _ in range(orders)]
        self.products: list[str] = []

    async def begin(self) -> None:
        self.products = [(await self.shop.add(ON_HAND)).id for _ in range(2)]

    async def take(self, order: int, step: Step, *, again: bool) -> None:
        """Take one step of one order; `again` delivers the same event, otherwise a new one."""
        if step == "expire":
            self.shop.clock.advance(RESERVATION_TIME)
            await self.shop.sweep()
        else:
            with contextlib.suppress(AlreadyDone):
                await self.shop.receive(self._event(order, step), f"{order}-{step}" if again else "")
        await self.check()

    def _event(self, order: int, step: Step) -> Payload:
        order_id = self.orders[order]
        if step == "placed":
            first, second = self.products
            return placed((first, 2 + order), (second, 1), (first, 1), order_id=order_id)
        return confirmed(order_id) if step == "confirmed" else cancelled(order_id)

    async def states(self) -> list[State]:
        return [(await self.shop.reservation(order)).state for order in self.orders]

    async def check(self) -> None:
        """Check that pieces on hand and pieces sold add up, and that reservations match the stock."""
        known = [await self.shop.store.get_many(kind.type, self.orders) for kind in MAPPINGS[-1:]]
        reservations = [r for found in known for r in found.values()]
        for product_id in self.products:
            stock = await self.shop.stock_of(product_id)
            by_state = {
                state: sum(
                    line.quantity
                    for r in reservations
                    for line in r.lines
                    if r.state is state and line.product_id == product_id
                )
                for state in (State.RESERVED, State.COMMITTED)
            }
            assert stock.on_hand + by_state[State.COMMITTED] == ON_HAND
            assert stock.reserved == by_state[State.RESERVED]
            assert 0 <= stock.reserved <= stock.on_hand


@given(st.lists(st.tuples(st.integers(0, 5), STEPS, st.booleans()), max_size=40))
def test_stock_adds_up_after_every_step_of_any_scenario(steps: list[tuple[int, Step, bool]]) -> None:
    async def play() -> None:
        scenario = Scenario(6)
        await scenario.begin()
        for order, step, again in steps:
            await scenario.take(order, step, again=again)

    asyncio.run(play())


@given(st.lists(st.tuples(EVENTS, st.booleans()), min_size=1, max_size=10))
def test_an_order_ends_the_same_whatever_order_its_events_came_in(steps: list[tuple[Step, bool]]) -> None:
    async def play() -> None:
        scenario = Scenario(1)
        await scenario.begin()
        for step, again in steps:
            await scenario.take(0, step, again=again)
        assert await scenario.states() == [end_of({step for step, _ in steps})]

    asyncio.run(play())


@given(st.permutations(["placed", "confirmed", "placed", "confirmed", "expire", "expire"]))
def test_an_expiry_in_between_does_not_keep_a_paid_order_from_its_pieces(steps: list[Step]) -> None:
    async def play() -> None:
        scenario = Scenario(1)
        await scenario.begin()
        for step in steps:
            await scenario.take(0, step, again=False)
        assert await scenario.states() == [State.COMMITTED]

    asyncio.run(play())


def end_of(seen: set[Step]) -> State:
    """Return the state of an order of which these events have arrived."""
    if "cancelled" in seen:
        return State.RELEASED
    if "confirmed" in seen:
        return State.COMMITTED if "placed" in seen else State.AWAITED
    return State.RESERVED
