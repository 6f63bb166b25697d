"""Events come late, twice and in any order, among random actions and pauses; the sums agree all the same."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from functions.orders.domain import Order
from functions.runtime.errors import Code, ServiceError
from functions.runtime.store.postgres.local import PostgresServer
from functions.runtime.tests.conftest import postgres
from tests.disorder import invariants
from tests.disorder.platform import DOMAINS, HANDLED, LATER, TOKEN_LIFE, Platform
from tests.disorder.stores import OpenStore, interleaving, on_disk, on_postgres

__all__ = ["postgres"]

T = TypeVar("T")

EXAMPLES = int(os.environ.get("DISORDER_EXAMPLES", "0"))
"""How many random scenarios to run; by default a few, and always the same."""

TOKENS = ["tok_ok", "tok_ok", "tok_flaky", "tok_timeout", "tok_declined", "tok_insufficient_funds"]
PAUSES = [timedelta(seconds=20), timedelta(minutes=10), timedelta(minutes=21), timedelta(days=8)]
LONGEST_DELAY = timedelta(days=28)  # tombstones of deleted accounts are kept for 30 days
KEYS_ARE_REMEMBERED = timedelta(hours=23)
MAX_ORDERS = 5
# An action may come too late, or during an outage; any other error is a fault.
ANSWERS = {Code.FAILED_PRECONDITION, Code.UNAVAILABLE, Code.ABORTED}
ANSWER_REASONS = {"PAYMENT_NOT_FOUND", "USER_NOT_FOUND", "ACCOUNT_DELETED"}
ACTIONS = ["deliver"] * 8 + ["deliver again"] * 4 + ["sweep"] * 2 + ["ship"] * 2
ACTIONS += [
    "cancel",
    "cancel as administrator",
    "arrive",
    "refund",
    "refund all",
    "restock",
    "delete account",
]

ACTIONS += ["refund elsewhere", "dispute", "dispute", "win", "lose"]

number = st.integers(0, 1000)
"""Selects one of several things by its remainder."""
action = st.tuples(st.sampled_from(ACTIONS), number)
basket = st.tuples(st.integers(1, 2), st.integers(0, 1), st.integers(0, 2), st.sampled_from(TOKENS))
"""The customer, the pieces of the first and the second product, and the payment token."""


class Disorder(RuleBasedStateMachine):
    """A platform with two products, two customers and an administrator."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()

    def stores(self, seed: int) -> OpenStore:
        return interleaving(random.Random(seed))

    def run(self, *work: Coroutine[Any, Any, Any]) -> None:
        """Run all concurrently to their end."""
        self.runner.run(self.platform.run_concurrently(*work))

    @initialize(
        seed=number,
        pieces=st.tuples(st.integers(0, 4), st.integers(4, 12)),
        baskets=st.lists(basket, min_size=1, max_size=3),
    )
    def open(self, seed: int, pieces: tuple[int, int], baskets: list[tuple[int, int, int, str]]) -> None:
        self.chance = random.Random(seed)
        self.platform = Platform(self.stores(seed))
        self.run(self.platform.start())
        self.run(self.platform.register("ada@example.com"))
        self.run(self.platform.register("bob@example.com"))
        self.platform.mail_channel.dead.add("bob@example.com")
        self.run(*(self.platform.add_product(on_hand) for on_hand in pieces))
        self.opened = self.platform.clock.now()
        self.wanted: list[tuple[int, dict[str, int], str, str]] = []
        for each in baskets:
            self.place(each)

    @precondition(lambda self: len(self.platform.orders) < MAX_ORDERS)
    @rule(basket=basket)
    def place(self, basket: tuple[int, int, int, str]) -> None:
        who, *pieces, token = basket
        lines = {product: n for product, n in zip(self.platform.products, pieces, strict=True) if n}
        if lines:
            self.wanted.append((who, lines, token, f"key-{len(self.wanted)}"))
            self.run(self.answered(self.order_as_wanted(-1)))

    @precondition(lambda self: self.wanted and self.platform.clock.now() < self.opened + KEYS_ARE_REMEMBERED)
    @rule(number=number)
    def place_again(self, number: int) -> None:
        """Repeat a request with its key, three times at once: it places one order at most."""
        placed = len(self.platform.orders)
        self.run(*(self.answered(self.order_as_wanted(number)) for _ in range(3)))
        assert len(self.platform.orders) <= placed + 1

    async def order_as_wanted(self, number: int) -> None:
        who, lines, token, key = self.wanted[number % len(self.wanted)] if number >= 0 else self.wanted[-1]
        person = list(self.platform.people.values())[who]
        deleted = self.platform.deleted.get(person.subject)
        if not deleted or self.platform.clock.now() < deleted + TOKEN_LIFE:
            await self.platform.place(person, lines, token, key)

    @rule(what=action)
    def act(self, what: tuple[str, int]) -> None:
        self.run(self.do(*what))

    @rule(what=st.lists(action, min_size=2, max_size=6))
    def act_concurrently(self, what: list[tuple[str, int]]) -> None:
        self.run(*(self.do(*each) for each in what))

    @rule(skipped=st.sets(number, max_size=2), again=st.lists(number, max_size=3), pause=st.booleans())
    def deliveries_arrive(self, skipped: set[int], again: list[int], pause: bool) -> None:
        """Deliver most pending events and some earlier ones in any order, then repeatedly what they cause."""
        for _ in range(4):
            late = [one(self.platform.pending, number) for number in skipped]
            deliveries = [delivery for delivery in self.platform.pending if delivery not in late]
            deliveries += filter(None, (one(self.platform.delivered, number) for number in again))
            self.chance.shuffle(deliveries)
            self.run(*(self.platform.deliver(delivery) for delivery in deliveries))
            if pause:
                self.platform.clock.advance(timedelta(minutes=6))

    @rule(pause=st.sampled_from(PAUSES))
    def wait(self, pause: timedelta) -> None:
        if self.platform.clock.now() + pause < self.opened + LONGEST_DELAY:
            self.platform.clock.advance(pause)

    @rule(on=st.booleans())
    def outage(self, on: bool) -> None:
        self.platform.outage(on=on)

    @rule(faults=st.lists(st.sampled_from(["", "before", "after"]), min_size=1, max_size=4))
    def calls_to_the_provider_fail(self, faults: list[str]) -> None:
        self.platform.provider.faults = list(faults)

    async def do(self, what: str, number: int) -> None:
        """Perform one action on the thing that `number` selects."""
        platform, order = self.platform, one(list(self.platform.orders.values()), number)
        delivery = one(platform.delivered if what == "deliver again" else platform.pending, number)
        match what:
            case "deliver" | "deliver again" if delivery:
                assert await platform.deliver(delivery) in (HANDLED, LATER)
            case "sweep":
                assert await platform.sweep(DOMAINS[number % len(DOMAINS)]) == HANDLED
            case "restock":
                await self.answered(platform.restock(list(platform.products)[number % 2], number % 3))
            case "delete account" if number % 3 == 0:
                await self.answered(platform.delete_account(list(platform.people)[1 + number % 2]))
            case _ if order:
                await self.do_to_order(what, order, number)

    async def do_to_order(self, what: str, order: Order, number: int) -> None:
        platform = self.platform
        match what:
            case "cancel":
                await self.answered(platform.cancel(order.id, platform.people[order.user_id]))
            case "cancel as administrator":
                await self.answered(platform.cancel(order.id, platform.administrator))
            case "ship":
                await asyncio.gather(*(self.answered(platform.ship(placed)) for placed in platform.orders))
            case "arrive":
                await self.answered(platform.deliver_order(order.id))
            case "refund":
                await self.answered(platform.refund(order.id, number + 1, key=f"{order.id}-{number}"))
            case "refund all":
                await self.answered(platform.refund(order.id, None))
            case "refund elsewhere":
                await platform.refund_elsewhere(order.id, number + 1)
            case "dispute":
                await platform.dispute(order.id)
            case "win" | "lose":
                await platform.decide(order.id, won=what == "win")

    @staticmethod
    async def answered(work: Coroutine[Any, Any, Any]) -> None:
        """Run an action, which may be refused."""
        try:
            await work
        except ServiceError as error:
            assert error.code in ANSWERS or error.reason in ANSWER_REASONS, error  # noqa: PT017 - as said

    @invariant()
    def sums_agree(self) -> None:
        self.runner.run(invariants.always(self.platform))

    def teardown(self) -> None:
        try:
            if hasattr(self, "wanted"):
                self.runner.run(self.platform.settle(self.chance.shuffle))
                self.runner.run(invariants.at_the_end(self.platform))
                self.runner.run(self.platform.close())
        finally:
            self.runner.close()


def one(things: list[T], number: int) -> T | None:
    """Return the thing that `number` selects, or None if there are none."""
    return things[number % len(things)] if things else None


class DisorderOnDisk(Disorder):
    """The same on SQLite."""

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


class DisorderOnPostgres(Disorder):
    """The same on PostgreSQL."""

    server: PostgresServer

    def stores(self, seed: int) -> OpenStore:
        return on_postgres(self.server)


@pytest.fixture(scope="class")
def disorder_on_postgres(postgres: PostgresServer) -> None:
    DisorderOnPostgres.server = postgres


def scenarios(examples: int, steps: int) -> settings:
    return settings(
        max_examples=EXAMPLES or examples,
        stateful_step_count=steps,
        derandomize=not EXAMPLES,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


TestDisorder = Disorder.TestCase
TestDisorder.settings = scenarios(20, 40)
TestDisorderOnPostgres = pytest.mark.usefixtures("disorder_on_postgres")(DisorderOnPostgres.TestCase)
TestDisorderOnPostgres.settings = scenarios(3, 30)
TestDisorderOnDisk = DisorderOnDisk.TestCase
TestDisorderOnDisk.settings = scenarios(3, 30)
