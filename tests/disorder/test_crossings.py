"""One order, one interruption of its saga at each step, one type of event that comes last: every combination."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta

import pytest

from functions.runtime.errors import Code, ServiceError
from functions.runtime.store.memory import MemoryStore
from tests.disorder import invariants
from tests.disorder.platform import DOMAINS, PRICE, Platform

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
"""A payment token, and the faults of the first calls to the provider."""


class Crossing:
    """A platform with one order, where the events `late` (domain, type) are delivered last."""

    def __init__(self, late: tuple[str, str]) -> None:
        self.platform = Platform(lambda _, mappings, clock: MemoryStore(mappings, clock))
        self.late = late

    async def place(self, payment: str) -> None:
        """Place an order for one piece of the only product."""
        await self.platform.start()
        self.ada = await self.platform.register("ada@example.com")
        product = await self.platform.add_product(3)
        await self.platform.run_concurrently()
        await self.deliver_all()
        token, faults = PAYMENTS[payment]
        self.platform.provider.faults = list(faults)
        order = await self.platform.place(self.ada, {product: 1}, token)
        self.order_id = order.id
        await self.platform.publish_committed()

    async def deliver_one(self) -> bool:
        """Deliver the oldest event that is not late; False if there is none. A failed one is tried again later."""
        deliveries = [it for it in self.platform.pending if (it.domain, it.row.type) != self.late]
        for delivery in deliveries:
            await self.platform.run_concurrently(self.platform.deliver(delivery))
            if delivery not in self.platform.pending:
                return True
        return False

    async def deliver_all(self) -> None:
        """Deliver everything that is not late, and what it causes."""
        while await self.deliver_one():
            pass

    async def cross(self, what: str) -> None:
        """Interrupt the saga, unless it is too late."""
        match what:
            case "the customer cancels":
                await self.cancel()
            case "it expires":
                await self.expire()
            case "the account is deleted":
                await self.platform.delete_account(self.ada.subject)
            case "all goes back at the provider":
                await self.platform.refund_elsewhere(self.order_id, PRICE.amount)
            case "some goes back at the provider, and the customer cancels":
                await self.platform.refund_elsewhere(self.order_id, 250)
                await self.cancel()
            case "the bank disputes it and loses, and the customer cancels":
                await self.platform.dispute(self.order_id)
                await self.platform.run_concurrently(self.platform.sweep("payments"))
                await self.cancel()
            case "the bank disputes it and wins":
                await self.platform.dispute(self.order_id)
                await self.platform.run_concurrently(self.platform.sweep("payments"))
                await self.platform.decide(self.order_id, won=False)
        await self.platform.publish_committed()

    async def cancel(self) -> None:
        """Cancel by the customer; a declined order is cancelled already."""
        try:
            await self.platform.cancel(self.order_id, self.ada)
        except ServiceError as error:
            assert error.code is Code.FAILED_PRECONDITION  # noqa: PT017 - or else a fault

    async def expire(self) -> None:
        """Advance the clock beyond every timeout, and sweep."""
        self.platform.clock.advance(timedelta(hours=1))
        await self.platform.run_concurrently(*(self.platform.sweep(domain) for domain in DOMAINS))


async def kinds_of_deliveries(payment: str) -> list[tuple[str, str]]:
    """Return the (domain, type) of all deliveries, in the undisturbed saga and in a cancelled one."""
    found: dict[tuple[str, str], None] = {}
    for moment in (4, 100):
        crossing = Crossing(("", ""))
        await crossing.place(payment)
        for _ in range(moment):
            await crossing.deliver_one()
        await crossing.cancel()
        await crossing.platform.publish_committed()
        await crossing.deliver_all()
        found |= dict.fromkeys((delivery.domain, delivery.row.type) for delivery in crossing.platform.delivered)
        await crossing.platform.close()
    return list(found)


async def run(late: tuple[str, str], what: str, payment: str, moment: int) -> bool:
    """Run one combination to its end; False if the saga was over before that moment."""
    crossing = Crossing(late)
    platform = crossing.platform
    await crossing.place(payment)
    reached = all([await crossing.deliver_one() for _ in range(moment)])
    await crossing.cross(what)
    await crossing.deliver_all()
    await platform.deliver_all(list.reverse)
    await platform.settle(list.reverse)
    await invariants.at_the_end(platform)
    await platform.close()
    return reached


@pytest.mark.parametrize("what", CROSSINGS)
@pytest.mark.parametrize("payment", PAYMENTS)
def test_whatever_crosses_an_order_at_any_moment_and_whatever_is_late_the_sums_agree(what: str, payment: str) -> None:
    async def run_all() -> None:
        for late in [("", ""), *await kinds_of_deliveries(payment)]:
            for moment in itertools.count():
                try:
                    if not await run(late, what, payment, moment):
                        break
                except AssertionError as error:
                    error.add_note(f"late: {late}; {what} after {moment} deliveries; {payment}")
                    raise

    asyncio.run(run_all())
