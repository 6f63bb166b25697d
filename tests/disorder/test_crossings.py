"""One order, one thing that crosses its saga at each moment, one kind of event that comes last: every combination."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta

import pytest

from functions.runtime.errors import Code, ServiceError
from functions.runtime.store.memory import MemoryStore
from tests.disorder import invariants
from tests.disorder.world import DOMAINS, PRICE, World

CROSSINGS = [
    "the customer cancels",
    "it expires",
    "the account is deleted",
    "all goes back at the provider",
    "some goes back at the provider, and the customer cancels",
    "the bank disputes it and loses, and the customer cancels",
    "the bank disputes it and wins",
]
PAYMENTS = {
    "paid": ("tok_ok", []),
    "paid, but the answers are lost": ("tok_ok", ["after", "after"]),
    "declined": ("tok_declined", []),
}
"""A payment token, and what the line to the provider does to the first calls."""


class Crossing:
    """A shop with one order, and what is late there."""

    def __init__(self, late: tuple[str, str]) -> None:
        self.world = World(lambda _, kinds, clock: MemoryStore(kinds, clock))
        self.late = late

    async def place(self, payment: str) -> None:
        """One piece of the only product."""
        await self.world.start()
        self.ada = await self.world.register("ada@example.com")
        product = await self.world.add_product(3)
        await self.world.live()
        await self.deliver_all()
        token, faults = PAYMENTS[payment]
        self.world.provider.faults = list(faults)
        order = await self.world.place(self.ada, {product: 1}, token)
        self.order_id = order.id
        await self.world.collect()

    async def deliver_one(self) -> bool:
        """The oldest that is not late; False where there is none. Who gets it may fail, it is then tried again."""
        parcels = [it for it in self.world.pending if (it.domain, it.row.type) != self.late]
        for parcel in parcels:
            await self.world.live(self.world.deliver(parcel))
            if parcel not in self.world.pending:
                return True
        return False

    async def deliver_all(self) -> None:
        """Everything that is not late, and what comes of it."""
        while await self.deliver_one():
            pass

    async def cross(self, what: str) -> None:
        """It happens, or is too late to."""
        match what:
            case "the customer cancels":
                await self.cancel()
            case "it expires":
                await self.expire()
            case "the account is deleted":
                await self.world.delete_account(self.ada.subject)
            case "all goes back at the provider":
                await self.world.refund_elsewhere(self.order_id, PRICE.amount)
            case "some goes back at the provider, and the customer cancels":
                await self.world.refund_elsewhere(self.order_id, 250)
                await self.cancel()
            case "the bank disputes it and loses, and the customer cancels":
                await self.world.dispute(self.order_id)
                await self.world.live(self.world.sweep("payments"))
                await self.cancel()
            case "the bank disputes it and wins":
                await self.world.dispute(self.order_id)
                await self.world.live(self.world.sweep("payments"))
                await self.world.decide(self.order_id, won=False)
        await self.world.collect()

    async def cancel(self) -> None:
        """By hand; a declined order is cancelled already."""
        try:
            await self.world.cancel(self.order_id, self.ada)
        except ServiceError as error:
            assert error.code is Code.FAILED_PRECONDITION  # noqa: PT017 - or else a fault

    async def expire(self) -> None:
        """Nothing moves for longer than anybody waits."""
        self.world.clock.advance(timedelta(hours=1))
        await self.world.live(*(self.world.sweep(domain) for domain in DOMAINS))


async def kinds_of_mail(payment: str) -> list[tuple[str, str]]:
    """Who gets which events in the undisturbed saga and in a cancelled one."""
    found: dict[tuple[str, str], None] = {}
    for moment in (4, 100):
        crossing = Crossing(("", ""))
        await crossing.place(payment)
        for _ in range(moment):
            await crossing.deliver_one()
        await crossing.cancel()
        await crossing.world.collect()
        await crossing.deliver_all()
        found |= dict.fromkeys((parcel.domain, parcel.row.type) for parcel in crossing.world.delivered)
        await crossing.world.close()
    return list(found)


async def tell(late: tuple[str, str], what: str, payment: str, moment: int) -> bool:
    """The story to its end; False when the saga was over before that moment."""
    crossing = Crossing(late)
    world = crossing.world
    await crossing.place(payment)
    reached = all([await crossing.deliver_one() for _ in range(moment)])
    await crossing.cross(what)
    await crossing.deliver_all()
    await world.deliver_all(list.reverse)
    await world.settle(list.reverse)
    await invariants.at_the_end(world)
    await world.close()
    return reached


@pytest.mark.parametrize("what", CROSSINGS)
@pytest.mark.parametrize("payment", PAYMENTS)
def test_whatever_crosses_an_order_at_any_moment_and_whatever_is_late_the_sums_agree(
    what: str, payment: str
) -> None:
    async def tell_all() -> None:
        for late in [("", ""), *await kinds_of_mail(payment)]:
            for moment in itertools.count():
                try:
                    if not await tell(late, what, payment, moment):
                        break
                except AssertionError as error:
                    error.add_note(f"late: {late}; {what} after {moment} deliveries; {payment}")
                    raise

    asyncio.run(tell_all())
