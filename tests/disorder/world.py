"""All five domains with their real use cases and event doors, and a mail between them that is in no hurry.

Each domain is composed by its own bootstrap over a store of its own; questions to other domains are calls of their
use cases instead of gRPC. What commits goes into `pending` as one parcel for each subscriber, and stays there until
somebody delivers it: late, twice, or before what came first.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from starlette.requests import Request

from events.catalog import CATALOG, SUBSCRIBERS, Money, SweepDue
from events.outbox import OutboxRow
from events.publisher import headers
from functions.orders.domain import Order
from functions.orders.pricing import RequestedLine
from functions.orders.service import CancelOrder, PlaceOrder
from functions.orders.tests.shop import orders_service
from functions.payments.domain import Refund, payment_id
from functions.payments.providers import simulated
from functions.payments.refunds import RefundPayment, RefundsService
from functions.payments.tests.shop import SETTLE_AFTER, FaultyProvider, SimulatedBank
from functions.products.domain import CreateProduct
from functions.products.stock.domain import Stock
from functions.products.stock.service import SetStock
from functions.products.tests.shop import products_service, stock_service
from functions.runtime.addresses import PostalAddress
from functions.runtime.clock import ManualClock
from functions.runtime.currencies import SIMULATED
from functions.runtime.event_function import EventFunction
from functions.runtime.identity import ADMIN, CUSTOMER, Identity
from functions.runtime.ids import uuid7
from functions.runtime.settings import load
from functions.runtime.store.port import Store
from functions.runtime.testing import KEYS, FakeVerifier, keyed, signer
from functions.users.auth.challenges import Purpose
from functions.users.bootstrap import compose as compose_users
from functions.users.domain import AdminRoster
from functions.users.service import ChangePassword, DeleteUser, RegisterUser, UpdateUser
from functions.users.settings import Settings as UsersSettings
from functions.users.store import ROSTER_ID
from functions.users.tests.accounts import cheap_hasher
from tests.architecture import domains
from tests.disorder.peers import OrdersPeer, Postman, ProductsPeer, UsersPeer
from tests.disorder.stores import OpenStore

DOMAINS = tuple(domains(Path(__file__).parents[2]))
HOME = PostalAddress("Ada Lovelace", "12 St James's Square", "London", "SW1Y 4JH", "GB")
PASSWORD = "a horse, a kingdom"
PRICE = Money(1250, "EUR")
HANDLED, LATER = 204, 503
TOKEN_LIFE = timedelta(minutes=15)
_ALL = datetime.max.replace(tzinfo=UTC)
_hasher = cheap_hasher()


class Parcel(NamedTuple):
    """An event on its way to one subscriber."""

    domain: str
    row: OutboxRow


class World:
    """The platform without its doors to people. `refused` is what a broker would have kept as dead letters."""

    def __init__(self, open_store: OpenStore) -> None:
        self.clock = ManualClock()
        self.pending: list[Parcel] = []
        self.delivered: list[Parcel] = []
        self.refused: list[tuple[Parcel, int]] = []
        self.orders: dict[str, Order] = {}  # as placed
        self.products: dict[str, int] = {}  # pieces put on the shelf so far
        self.people: dict[str, Identity] = {}
        self.deleted: dict[str, datetime] = {}
        self.store: dict[str, Store] = {
            name: open_store(name, importlib.import_module(f"functions.{name}.store").MAPPINGS, self.clock)
            for name in DOMAINS
        }
        self.books = open_store("ledger", simulated.MAPPINGS, self.clock)
        simulation = simulated.SimulatedProvider(self.books, self.clock, slow_seconds=0)
        self.bank = SimulatedBank(simulation)
        self.provider = FaultyProvider(simulation)
        self.postman = Postman()
        self._products = products_service(self.store["products"], self.clock)
        self._stock = stock_service(self.store["products"], self.clock)
        self.catalogue = ProductsPeer(self._products)
        self._orders = orders_service(self.store["orders"], self.clock, self.catalogue)
        self.instructions = OrdersPeer(self._orders)
        self.accounts = compose_users(
            UsersSettings(registration="open"), self.store["users"], _hasher, self.clock
        )
        self.contacts = UsersPeer(self.accounts)
        replaced: dict[str, dict[str, Any]] = {
            "orders": {"catalogue": self.catalogue},
            "payments": {"provider": self.provider, "orders": self.instructions},
            "notifications": {"channel": self.postman, "users": self.contacts},
        }
        self.functions = {name: self._compose(name, **replaced.get(name, {})) for name in DOMAINS}
        self._doors = {
            name: EventFunction(function, self._forget(name)) for name, function in self.functions.items()
        }
        self._refunds = RefundsService(
            self.store["payments"], self.provider, self.clock, settle_after=SETTLE_AFTER, limits=SIMULATED
        )

    def _compose(self, name: str, **replaced: Any) -> Any:
        settings = load(importlib.import_module(f"functions.{name}.settings").Settings, {})
        bootstrap = importlib.import_module(f"functions.{name}.bootstrap").bootstrap
        given = {"store": self.store[name], "clock": self.clock, "verifier": FakeVerifier()}
        return keyed(bootstrap(settings, **given, **replaced))

    def _forget(self, name: str) -> Callable[[], Awaitable[None]]:
        async def forget() -> None:
            await self.store[name].expire(self.clock.now())

        return forget

    async def start(self) -> None:
        """The administrator, and what every function does before it serves."""
        for function in self.functions.values():
            for hook in function.on_start:
                await hook()
        await self.accounts.users.ensure_admin("boss@example.com", PASSWORD)
        roster = await self.store["users"].get(AdminRoster, ROSTER_ID)
        assert roster
        self.boss = Identity(roster.user_ids[0], frozenset({ADMIN, CUSTOMER}), auth_time=float("inf"))
        self.people[self.boss.subject] = self.boss

    async def close(self) -> None:
        """Let go of files."""
        for store in (*self.store.values(), self.books):
            await store.close()

    # What people do

    async def register(self, email: str) -> Identity:
        """A new account."""
        user = await self.accounts.users.register(RegisterUser(email, PASSWORD, "Ada"))
        who = self.people[user.id] = Identity(user.id, frozenset(user.roles), auth_time=float("inf"))
        return who

    async def ask_for_verification(self, who: Identity) -> None:
        """The person wants a mail that proves their address."""
        await self.accounts.recovery.request_verification(who.subject, who)

    async def ask_for_email(self, who: Identity, email: str) -> None:
        """The person wants another address."""
        await self.accounts.users.update(UpdateUser(who.subject, email=email), who)

    async def confirm_email(self, who: Identity) -> None:
        """They read the mail at the other address."""
        code = await self.contacts.mailed_token(who.subject, Purpose.EMAIL_CHANGE)
        assert code is not None
        await self.accounts.email_changes.confirm(code.token)

    async def change_password(self, who: Identity) -> None:
        """The person chooses another password."""
        command = ChangePassword(who.subject, PASSWORD, f"{PASSWORD}, another")
        await self.accounts.users.change_password(command, who)

    async def add_product(self, on_hand: int) -> str:
        """For sale, with stock; its id."""
        command = CreateProduct(sku=uuid7(), name="Teapot", category="kitchen", price=PRICE)
        product = await self._products.create(command, self.boss)
        self.products[product.id] = 0
        await self.restock(product.id, on_hand)
        return product.id

    async def restock(self, product_id: str, pieces: int) -> None:
        """More of it arrives."""
        found = await self.store["products"].get(Stock, product_id)
        assert found is not None
        command = SetStock(product_id, found.on_hand + pieces, version=found.version)
        await self._stock.set(command, self.boss)
        self.products[product_id] += pieces

    async def place(self, who: Identity, lines: dict[str, int], token: str, key: str | None = None) -> Order:
        """Order something."""
        requested = [RequestedLine(product_id, quantity) for product_id, quantity in lines.items()]
        command = PlaceOrder(requested, HOME, token, key, fingerprint=f"{lines}{token}")
        order = await self._orders.place(command, who)
        self.orders[order.id] = order
        return order

    async def cancel(self, order_id: str, who: Identity) -> None:
        """Before it is shipped."""
        await self._orders.cancel(CancelOrder(order_id), who)

    async def ship(self, order_id: str) -> None:
        """It leaves."""
        await self._orders.ship(order_id, self.boss)

    async def arrive(self, order_id: str) -> None:
        """It is there."""
        await self._orders.deliver(order_id, self.boss)

    async def refund(self, order_id: str, amount: int | None, key: str | None = None) -> Refund:
        """Give some of the money back; None for all that is left."""
        money = None if amount is None else Money(amount, PRICE.currency)
        command = RefundPayment(payment_id(order_id), money, idempotency_key=key)
        return await self._refunds.refund(command, self.boss)

    async def refund_elsewhere(self, order_id: str, amount: int) -> None:
        """Somebody gives money back on the provider's own pages."""
        await self.bank.refund(f"re_{uuid7()}", payment_id(order_id), Money(amount, PRICE.currency))

    async def return_refund(self, order_id: str) -> None:
        """The customer's bank sends a refund back."""
        await self.bank.bounce(payment_id(order_id))

    async def dispute(self, order_id: str) -> None:
        """The customer's bank disputes the charge, where there is one."""
        await self.bank.dispute(payment_id(order_id))

    async def decide(self, order_id: str, *, won: bool) -> None:
        """The bank closes what is open."""
        await self.bank.decide(payment_id(order_id), won=won)

    async def delete_account(self, user_id: str) -> None:
        """The person leaves."""
        await self.accounts.users.delete(DeleteUser(user_id), self.people[user_id])
        self.deleted[user_id] = self.clock.now()

    # What the platform does

    async def live(self, *work: Awaitable[Any]) -> None:
        """Let all of it happen at once, each to its end."""
        self.clock.advance(timedelta(seconds=1))
        results = await asyncio.gather(*work, return_exceptions=True)
        await self.collect()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def settle(self, shuffle: Callable[[list[Parcel]], None]) -> None:
        """All works again; everything is delivered, in whatever order, and swept, until nothing moves."""
        self.outage(on=False)
        self.provider.faults.clear()
        await self.deliver_all(shuffle)
        for order_id in self.orders:
            await self.decide(order_id, won=True)
        quiet = 0
        while quiet < 3:  # a message is tried again after an hour at most, everything else sooner
            self.clock.advance(timedelta(hours=1))
            await self.live(*(self.sweep(domain) for domain in DOMAINS for _ in range(2)))
            quiet = 0 if self.pending else quiet + 1
            await self.deliver_all(shuffle)

    async def deliver_all(self, shuffle: Callable[[list[Parcel]], None]) -> None:
        """What is on its way, and what comes of it."""
        for _ in range(50):
            if not self.pending:
                return
            parcels = list(self.pending)
            shuffle(parcels)
            await self.live(*(self.deliver(parcel) for parcel in parcels))
        raise AssertionError(f"never handled: {self.pending}")

    async def collect(self) -> None:
        """What has committed is published: one parcel for each subscriber."""
        for name, store in self.store.items():
            rows = await store.outbox(_ALL, 1000)
            for row in rows:
                assert row.source == f"/{name}"
                self.pending += [Parcel(domain, row) for domain in SUBSCRIBERS[CATALOG[row.type]]]
            await store.outbox_published([row.id for row in rows])

    async def deliver(self, parcel: Parcel) -> int:
        """Hand it to its subscriber once; what is not handled stays pending, or is refused for good."""
        status = await self.post(parcel)
        if status == HANDLED and parcel in self.pending:
            self.pending.remove(parcel)
            self.delivered.append(parcel)
        elif status not in (HANDLED, LATER):
            self.refused.append((parcel, status))
        return status

    async def post(self, parcel: Parcel) -> int:
        """The subscriber's answer: an HTTP status."""
        # A tick's source is no service: nobody looks at its signature.
        sender = signer(parcel.row.source[1:] if parcel.row.source[1:] in KEYS else "users")
        lines = (line.split(b": ", 1) for line in headers(parcel.row, sender).splitlines())
        length = (b"content-length", b"%d" % len(parcel.row.data))
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": [(name.lower(), value) for name, value in (*lines, length)],
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": parcel.row.data, "more_body": False}

        response = await self._doors[parcel.domain](Request(scope, receive))
        return response.status_code

    async def sweep(self, domain: str) -> int:
        """A PingSource's tick reaches one domain."""
        now = self.clock.now()
        row = OutboxRow(uuid7(), SweepDue.TYPE, SweepDue.SOURCE, "", now, b'{"sweep": "all"}', "", "", "")
        return await self.post(Parcel(domain, row))

    def outage(self, *, on: bool) -> None:
        """Nobody answers anybody, no money moves and no mail goes out; or all works again."""
        for part in (self.catalogue, self.instructions, self.contacts, self.provider, self.postman):
            part.down = on
