"""Every handler of every domain: ten deliveries of an event have the effect of one.

A story makes each event that anybody subscribed to; each is delivered ten times, of which the last five come when the
inbox has long forgotten it. A new handler is in the list by itself, and fails until the story makes its event.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest

from events.catalog import SweepDue
from functions.runtime.store.memory import MemoryStore
from tests.disorder.stores import restless
from tests.disorder.world import DOMAINS, HANDLED, World

Handler = tuple[str, str]
"""A domain and the type of an event."""


def new_world() -> World:
    return World(restless(random.Random(1)))


HANDLERS: list[Handler] = sorted(
    (name, payload.TYPE)
    for name, function in new_world().functions.items()
    for payload in function.subscriptions
)


class Witness:
    """Tells the story, and notes for each handler what a repeated delivery has changed."""

    def __init__(self) -> None:
        self.world = new_world()
        self.changed: dict[Handler, list[str]] = {}

    async def tell(self) -> None:
        world = self.world
        await world.start()
        world.postman.dead.add("bob@example.com")
        ada, _, eve = [await world.register(f"{name}@example.com") for name in ("ada", "bob", "eve")]
        await world.ask_for_verification(ada)
        product = await world.add_product(6)
        await self.mail()
        await world.ask_for_email(eve, "eve@example.org")
        await self.mail()
        await world.confirm_email(eve)
        await world.change_password(eve)
        await self.mail()
        bought, returned, declined, refused, stuck, held = [
            (await world.place(ada, {product: pieces}, token)).id
            for pieces, token in (
                (1, "tok_ok"),
                (1, "tok_ok"),
                (1, "tok_declined"),
                (9, "tok_ok"),
                (1, "tok_flaky"),
                (1, "tok_ok"),
            )
        ]
        await self.mail(unless=held)
        await world.ship(bought)
        await world.arrive(bought)
        await world.cancel(returned, ada)
        await world.refund(bought, 50)
        await self.mail(unless=held)
        await world.return_refund(bought)
        await world.dispute(bought)
        await self.later(timedelta(minutes=1))  # what was left pending, or done at the provider, is taken up
        await self.mail(unless=held)
        await world.decide(bought, won=True)
        await self.later(timedelta(minutes=1))
        await self.mail(unless=held)
        await self.later(timedelta(minutes=30))  # what was held expires
        await self.mail()
        await world.delete_account(ada.subject)
        await self.mail()
        assert len({bought, returned, declined, refused, stuck, held}) == 6

    async def later(self, pause: timedelta) -> None:
        self.world.clock.advance(pause)
        for domain in DOMAINS:
            assert await self.world.sweep(domain) == HANDLED
            await self.again((domain, SweepDue.TYPE), lambda domain=domain: self.world.sweep(domain))

    async def mail(self, unless: str = "") -> None:
        """Deliver what there is, and what comes of it; all but what is about `unless` ends handled."""
        await self.world.collect()
        while parcels := [parcel for parcel in self.world.pending if parcel.row.subject != unless]:
            for parcel in parcels:
                self.world.clock.advance(timedelta(seconds=1))
                if await self.world.deliver(parcel) == HANDLED:
                    await self.again((parcel.domain, parcel.row.type), lambda it=parcel: self.world.post(it))
            await self.world.collect()

    async def again(self, handler: Handler, deliver: Any) -> None:
        """Nine more; what is different afterwards."""
        before, changed = self.state(), self.changed.setdefault(handler, [])
        for attempt in range(2, 11):
            self.world.clock.advance(timedelta(milliseconds=1))
            if attempt > 5:
                for store in self.memories():
                    store._records.clear()
            status = await deliver()
            if status != HANDLED:
                changed.append(f"delivery {attempt} was answered {status}")
        after = self.state()
        changed += [
            f"{key}: {before.get(key)} -> {after[key]}" for key in after if before.get(key) != after[key]
        ]

    def memories(self) -> list[MemoryStore]:
        stores = [*self.world.store.values(), self.world.books]
        return [store for store in stores if isinstance(store, MemoryStore)]

    def state(self) -> dict[str, Any]:
        """All entities, all events that were sent, all mail that went out."""
        found: dict[str, Any] = {"mail": list(self.world.postman.sent)}
        for number, store in enumerate(self.memories()):
            found |= {
                f"{number} {kind} {key}": stored
                for (kind, key), stored in store._entities.items()
                if kind != "reconciliation"  # how far the provider's books were read, which each sweep moves
            }
            found |= {f"event {row.id}": row for row in store._outbox.values()}
        return found


@pytest.fixture(scope="module")
def witness() -> Witness:
    witness = Witness()
    asyncio.run(witness.tell())
    return witness


@pytest.mark.parametrize(("domain", "event"), HANDLERS)
def test_ten_deliveries_have_the_effect_of_one(witness: Witness, domain: str, event: str) -> None:
    assert (domain, event) in witness.changed, f"no part of the story makes {event} for {domain}: add it"
    assert witness.changed[domain, event] == []


def test_nothing_in_the_story_was_refused(witness: Witness) -> None:
    assert witness.world.refused == []
