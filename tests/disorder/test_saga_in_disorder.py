"""Events come late, twice and in any order, while people and clocks do what they like; the sums agree all the same."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from functions.orders.domain import Order
from functions.runtime.errors import Code, ServiceError
from tests.disorder import invariants
from tests.disorder.stores import OpenStore, on_disk, restless
from tests.disorder.world import DOMAINS, HANDLED, LATER, TOKEN_LIFE, World

T = TypeVar("T")

EXAMPLES = int(os.environ.get("DISORDER_EXAMPLES", "0"))
"""How many stories to make up at random; by default a few, and always the same."""

TOKENS = ["tok_ok", "tok_ok", "tok_flaky", "tok_timeout", "tok_declined", "tok_insufficient_funds"]
PAUSES = [timedelta(seconds=20), timedelta(minutes=10), timedelta(minutes=21), timedelta(days=8)]
LONGEST_DELAY = timedelta(days=28)  # what remembers a deleted account does so for 30 days
KEYS_ARE_SURE = timedelta(hours=23)
MOST_ORDERS = 5
# Somebody may come too late for what they want, or while nobody answers; anything else is a fault.
ANSWERS = {Code.FAILED_PRECONDITION, Code.UNAVAILABLE, Code.ABORTED}
ANSWER_REASONS = {"PAYMENT_NOT_FOUND", "USER_NOT_FOUND", "ACCOUNT_DELETED"}
HAPPENINGS = ["deliver"] * 8 + ["deliver again"] * 4 + ["sweep"] * 2 + ["ship"] * 2
HAPPENINGS += ["cancel", "cancel as boss", "arrive", "refund", "refund all", "restock", "delete account"]

HAPPENINGS += ["refund elsewhere", "dispute", "dispute", "win", "lose"]

number = st.integers(0, 1000)
"""Stands for one of several things, by its rest."""
happening = st.tuples(st.sampled_from(HAPPENINGS), number)
basket = st.tuples(st.integers(1, 2), st.integers(0, 1), st.integers(0, 2), st.sampled_from(TOKENS))
"""Who orders, pieces of the first and the second product, and how it is paid."""


class Disorder(RuleBasedStateMachine):
    """A shop with two products, two customers and an administrator."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()

    def stores(self, seed: int) -> OpenStore:
        return restless(random.Random(seed))

    def run(self, *work: Coroutine[Any, Any, Any]) -> None:
        """Let all of it happen at once, each to its end."""

        self.runner.run(self.world.live(*work))

    @initialize(
        seed=number,
        pieces=st.tuples(st.integers(0, 4), st.integers(4, 12)),
        baskets=st.lists(basket, min_size=1, max_size=3),
    )
    def open(self, seed: int, pieces: tuple[int, int], baskets: list[tuple[int, int, int, str]]) -> None:
        self.chance = random.Random(seed)
        self.world = World(self.stores(seed))
        self.run(self.world.start())
        self.run(self.world.register("ada@example.com"))
        self.run(self.world.register("bob@example.com"))
        self.world.postman.dead.add("bob@example.com")
        self.run(*(self.world.add_product(on_hand) for on_hand in pieces))
        self.opened = self.world.clock.now()
        self.wanted: list[tuple[int, dict[str, int], str, str]] = []
        for each in baskets:
            self.place(each)

    @precondition(lambda self: len(self.world.orders) < MOST_ORDERS)
    @rule(basket=basket)
    def place(self, basket: tuple[int, int, int, str]) -> None:
        who, *pieces, token = basket
        lines = {product: n for product, n in zip(self.world.products, pieces, strict=True) if n}
        if lines:
            self.wanted.append((who, lines, token, f"key-{len(self.wanted)}"))
            self.run(self.answered(self.order_as_wanted(-1)))

    @precondition(lambda self: self.wanted and self.world.clock.now() < self.opened + KEYS_ARE_SURE)
    @rule(number=number)
    def place_again(self, number: int) -> None:
        """The same request with the same key, three times at once: the same order, or one if there was none."""
        placed = len(self.world.orders)
        self.run(*(self.answered(self.order_as_wanted(number)) for _ in range(3)))
        assert len(self.world.orders) <= placed + 1

    async def order_as_wanted(self, number: int) -> None:
        who, lines, token, key = self.wanted[number % len(self.wanted)] if number >= 0 else self.wanted[-1]
        person = list(self.world.people.values())[who]
        deleted = self.world.deleted.get(person.subject)
        if not deleted or self.world.clock.now() < deleted + TOKEN_LIFE:
            await self.world.place(person, lines, token, key)

    @rule(what=happening)
    def happens(self, what: tuple[str, int]) -> None:
        self.run(self.do(*what))

    @rule(what=st.lists(happening, min_size=2, max_size=6))
    def happen_at_once(self, what: list[tuple[str, int]]) -> None:
        self.run(*(self.do(*each) for each in what))

    @rule(skipped=st.sets(number, max_size=2), again=st.lists(number, max_size=3), pause=st.booleans())
    def the_mail_comes(self, skipped: set[int], again: list[int], pause: bool) -> None:
        """All that is on its way but some, and some that came before, in any order; then again what that caused."""
        for _ in range(4):
            late = [one(self.world.pending, number) for number in skipped]
            parcels = [parcel for parcel in self.world.pending if parcel not in late]
            parcels += filter(None, (one(self.world.delivered, number) for number in again))
            self.chance.shuffle(parcels)
            self.run(*(self.world.deliver(parcel) for parcel in parcels))
            if pause:
                self.world.clock.advance(timedelta(minutes=6))

    @rule(pause=st.sampled_from(PAUSES))
    def wait(self, pause: timedelta) -> None:
        if self.world.clock.now() + pause < self.opened + LONGEST_DELAY:
            self.world.clock.advance(pause)

    @rule(on=st.booleans())
    def outage(self, on: bool) -> None:
        self.world.outage(on=on)

    @rule(faults=st.lists(st.sampled_from(["", "before", "after"]), min_size=1, max_size=4))
    def the_line_to_the_provider_is_bad(self, faults: list[str]) -> None:
        self.world.provider.faults = list(faults)

    async def do(self, what: str, number: int) -> None:
        """One thing that happens, to the one of several that `number` says."""
        world, order = self.world, one(list(self.world.orders.values()), number)
        parcel = one(world.delivered if what == "deliver again" else world.pending, number)
        match what:
            case "deliver" | "deliver again" if parcel:
                assert await world.deliver(parcel) in (HANDLED, LATER)
            case "sweep":
                assert await world.sweep(DOMAINS[number % len(DOMAINS)]) == HANDLED
            case "restock":
                await self.answered(world.restock(list(world.products)[number % 2], number % 3))
            case "delete account" if number % 3 == 0:
                await self.answered(world.delete_account(list(world.people)[1 + number % 2]))
            case _ if order:
                await self.do_to_order(what, order, number)

    async def do_to_order(self, what: str, order: Order, number: int) -> None:
        world = self.world
        match what:
            case "cancel":
                await self.answered(world.cancel(order.id, world.people[order.user_id]))
            case "cancel as boss":
                await self.answered(world.cancel(order.id, world.boss))
            case "ship":
                await asyncio.gather(*(self.answered(world.ship(placed)) for placed in world.orders))
            case "arrive":
                await self.answered(world.arrive(order.id))
            case "refund":
                await self.answered(world.refund(order.id, number + 1, key=f"{order.id}-{number}"))
            case "refund all":
                await self.answered(world.refund(order.id, None))
            case "refund elsewhere":
                await world.refund_elsewhere(order.id, number + 1)
            case "dispute":
                await world.dispute(order.id)
            case "win" | "lose":
                await world.decide(order.id, won=what == "win")

    @staticmethod
    async def answered(work: Coroutine[Any, Any, Any]) -> None:
        """Somebody asks for it, and may be told that it cannot be."""
        try:
            await work
        except ServiceError as error:
            assert error.code in ANSWERS or error.reason in ANSWER_REASONS, error  # noqa: PT017 - as said

    @invariant()
    def sums_agree(self) -> None:
        self.runner.run(invariants.always(self.world))

    def teardown(self) -> None:
        try:
            if hasattr(self, "wanted"):
                self.runner.run(self.world.settle(self.chance.shuffle))
                self.runner.run(invariants.at_the_end(self.world))
                self.runner.run(self.world.close())
        finally:
            self.runner.close()


def one(things: list[T], number: int) -> T | None:
    """One of them, None where there are none."""
    return things[number % len(things)] if things else None


class DisorderOnDisk(Disorder):
    """The same over SQLite."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()

    def stores(self, seed: int) -> OpenStore:
        return on_disk(Path(self.folder.name))

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.folder.cleanup()


def stories(examples: int, steps: int) -> settings:
    return settings(
        max_examples=EXAMPLES or examples,
        stateful_step_count=steps,
        derandomize=not EXAMPLES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


TestDisorder = Disorder.TestCase
TestDisorder.settings = stories(20, 40)
TestDisorderOnDisk = DisorderOnDisk.TestCase
TestDisorderOnDisk.settings = stories(3, 30)
