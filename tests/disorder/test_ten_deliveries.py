"""Every handler of every domain: ten deliveries of an event have the effect of one.

A scenario causes each event that has a subscriber. Each is delivered ten times; the last five come after its inbox
record has expired. A new handler is tested without being listed, and fails until the scenario causes its event.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest

from events.catalog import SweepDue
from functions.runtime.store.memory import MemoryStore
from tests.disorder.platform import DOMAINS, HANDLED, Platform
from tests.disorder.stores import interleaving

Handler = tuple[str, str]
"""A domain and the type of an event that it handles."""


def new_platform() -> Platform:
    return Platform(interleaving(random.Random(1)))


HANDLERS: list[Handler] = sorted(
    (name, payload.TYPE) for name, function in new_platform().functions.items() for payload in function.subscriptions
)


class RepeatedDeliveries:
    """Runs the scenario, and keeps for each handler what a repeated delivery has changed."""

    def __init__(self) -> None:
        self.platform = new_platform()
        self.changed: dict[Handler, list[str]] = {}

    async def run(self) -> None:
        platform = self.platform
        await platform.start()
        platform.mail_channel.dead.add("bob@example.com")
        ada, _, eve = [await platform.register(f"{name}@example.com") for name in ("ada", "bob", "eve")]
        await platform.ask_for_verification(ada)
        product = await platform.add_product(6)
        await self.deliver_pending()
        await platform.ask_for_email(eve, "eve@example.org")
        await self.deliver_pending()
        await platform.confirm_email(eve)
        await platform.change_password(eve)
        await self.deliver_pending()
        bought, returned, declined, refused, stuck, held = [
            (await platform.place(ada, {product: pieces}, token)).id
            for pieces, token in (
                (1, "tok_ok"),
                (1, "tok_ok"),
                (1, "tok_declined"),
                (9, "tok_ok"),
                (1, "tok_flaky"),
                (1, "tok_ok"),
            )
        ]
        await self.deliver_pending(unless=held)
        await platform.ship(bought)
        await platform.deliver_order(bought)
        await platform.cancel(returned, ada)
        await platform.refund(bought, 50)
        await self.deliver_pending(unless=held)
        await platform.return_refund(bought)
        await platform.dispute(bought)
        await self.later(timedelta(minutes=1))  # what was left pending, or done at the provider, is taken up
        await self.deliver_pending(unless=held)
        await platform.decide(bought, won=True)
        await self.later(timedelta(minutes=1))
        await self.deliver_pending(unless=held)
        await self.later(timedelta(minutes=30))  # what was held expires
        await self.deliver_pending()
        await platform.delete_account(ada.subject)
        await self.deliver_pending()
        assert len({bought, returned, declined, refused, stuck, held}) == 6

    async def later(self, pause: timedelta) -> None:
        self.platform.clock.advance(pause)
        for domain in DOMAINS:
            assert await self.platform.sweep(domain) == HANDLED
            await self.again((domain, SweepDue.TYPE), lambda domain=domain: self.platform.sweep(domain))

    async def deliver_pending(self, unless: str = "") -> None:
        """Deliver pending events, and those that they cause, except those about the order `unless`."""
        await self.platform.publish_committed()
        while deliveries := [delivery for delivery in self.platform.pending if delivery.row.subject != unless]:
            for delivery in deliveries:
                self.platform.clock.advance(timedelta(seconds=1))
                if await self.platform.deliver(delivery) == HANDLED:
                    await self.again((delivery.domain, delivery.row.type), lambda it=delivery: self.platform.post(it))
            await self.platform.publish_committed()

    async def again(self, handler: Handler, deliver: Any) -> None:
        """Deliver nine more times, and record what has changed."""
        before, changed = self.state(), self.changed.setdefault(handler, [])
        for attempt in range(2, 11):
            self.platform.clock.advance(timedelta(milliseconds=1))
            if attempt > 5:
                for store in self.memories():
                    store._records.clear()
            status = await deliver()
            if status != HANDLED:
                changed.append(f"delivery {attempt} was answered {status}")
        after = self.state()
        changed += [f"{key}: {before.get(key)} -> {after[key]}" for key in after if before.get(key) != after[key]]

    def memories(self) -> list[MemoryStore]:
        stores = [*self.platform.store.values(), self.platform.provider_store]
        return [store for store in stores if isinstance(store, MemoryStore)]

    def state(self) -> dict[str, Any]:
        """Return all entities, events and mails."""
        found: dict[str, Any] = {"mail": list(self.platform.mail_channel.sent)}
        for number, store in enumerate(self.memories()):
            found |= {
                f"{number} {kind} {key}": stored
                for (kind, key), stored in store._entities.items()
                if kind != "reconciliation"  # the position in the provider's ledger, which each sweep moves
            }
            found |= {f"event {row.id}": row for row in store._outbox.values()}
        return found


@pytest.fixture(scope="module")
def repeated() -> RepeatedDeliveries:
    repeated = RepeatedDeliveries()
    asyncio.run(repeated.run())
    return repeated


@pytest.mark.parametrize(("domain", "event"), HANDLERS)
def test_ten_deliveries_have_the_effect_of_one(repeated: RepeatedDeliveries, domain: str, event: str) -> None:
    assert (domain, event) in repeated.changed, f"the scenario causes no {event} for {domain}: add it"
    assert repeated.changed[domain, event] == []


def test_no_delivery_of_the_scenario_was_refused(repeated: RepeatedDeliveries) -> None:
    assert repeated.platform.refused == []
