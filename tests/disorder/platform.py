"""All domains with their real use cases and event functions, and a broker that delivers when a test says so.

Each domain is composed by its own bootstrap over a store of its own; calls to other domains run their use cases instead
of gRPC. Committed events go into `pending` as one delivery for each subscriber. A test delivers them: late, twice, or
out of order.
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
from functions.runtime.tests.support import KEYS, FakeVerifier, keyed, signer
from functions.users.auth.challenges import Purpose
from functions.users.bootstrap import compose as compose_users
from functions.users.domain import AdminRoster
from functions.users.service import ChangePassword, DeleteUser, RegisterUser, UpdateUser
from functions.users.settings import Settings as UsersSettings
from functions.users.store import ROSTER_ID
from functions.users.tests.accounts import cheap_hasher
from tests.architecture import domains
from tests.disorder.fakes import FakeMailChannel, InProcessOrders, InProcessProducts, InProcessUsers
from tests.disorder.stores import OpenStore

DOMAINS = tuple(domains(Path(__file__).parents[2]))
HOME = PostalAddress("Ada Lovelace", "12 St James's Square", "London", "SW1Y 4JH", "GB")
PASSWORD = "a horse, a kingdom"
PRICE = Money(1250, "EUR")
HANDLED, LATER = 204, 503
TOKEN_LIFE = timedelta(minutes=15)
_ALL = datetime.max.replace(tzinfo=UTC)
_hasher = cheap_hasher()


class Delivery(NamedTuple):
    """An event that is to be delivered to one subscriber."""

    domain: str
    row: OutboxRow


class Platform:
    """The domains without servers. `refused` are the deliveries that a broker would keep as dead letters."""

    def __init__(self, open_store: OpenStore) -> None:
        self.clock = ManualClock()
        self.pending: list[Delivery] = []
        self.delivered: list[Delivery] = []
        self.refused: list[tuple[Delivery, int]] = []
        self.orders: dict[str, Order] = {}  # as placed
        self.products: dict[str, int] = {}  # pieces that were ever added
        self.people: dict[str, Identity] = {}
        self.deleted: dict[str, datetime] = {}
        self.store: dict[str, Store] = {
            name: open_store(name, importlib.import_module(f"functions.{name}.store").MAPPINGS, self.clock)
            for name in DOMAINS
        }
        self.provider_store = open_store("ledger", simulated.MAPPINGS, self.clock)
        simulation = simulated.SimulatedProvider(self.provider_store, self.clock, slow_seconds=0)
        self.bank = SimulatedBank(simulation)
        self.provider = FaultyProvider(simulation)
        self.mail_channel = FakeMailChannel()
        self._products = products_service(self.store["products"], self.clock)
        self._stock = stock_service(self.store["products"], self.clock)
        self.catalogue = InProcessProducts(self._products)
        self._orders = orders_service(self.store["orders"], self.clock, self.catalogue)
        self.instructions = InProcessOrders(self._orders)
        self.accounts = compose_users(UsersSettings(registration="open"), self.store["users"], _hasher, self.clock)
        self.contacts = InProcessUsers(self.accounts)
        replaced: dict[str, dict[str, Any]] = {
            "orders": {"catalogue": self.catalogue},
            "payments": {"provider": self.provider, "orders": self.instructions},
            "notifications": {"channel": self.mail_channel, "users": self.contacts},
        }
        self.functions = {name: self._compose(name, **replaced.get(name, {})) for name in DOMAINS}
        self._event_functions = {
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
        """Run every function's start hooks and create the administrator."""
        for function in self.functions.values():
            for hook in function.on_start:
                await hook()
        await self.accounts.users.ensure_admin("admin@example.com", PASSWORD)
        roster = await self.store["users"].get(AdminRoster, ROSTER_ID)
        assert roster
        self.administrator = Identity(roster.user_ids[0], frozenset({ADMIN, CUSTOMER}), auth_time=float("inf"))
        self.people[self.administrator.subject] = self.administrator

    async def close(self) -> None:
        """Close the stores."""
        for store in (*self.store.values(), self.provider_store):
            await store.close()

    # Actions of people

    async def register(self, email: str) -> Identity:
        """Register an account."""
        user = await self.accounts.users.register(RegisterUser(email, PASSWORD, "Ada"))
        caller = self.people[user.id] = Identity(user.id, frozenset(user.roles), auth_time=float("inf"))
        return caller

    async def ask_for_verification(self, caller: Identity) -> None:
        """Request a mail that verifies the caller's address."""
        await self.accounts.recovery.request_verification(caller.subject, caller)

    async def ask_for_email(self, caller: Identity, email: str) -> None:
        """Request a change to another address."""
        await self.accounts.users.update(UpdateUser(caller.subject, email=email), caller)

    async def confirm_email(self, caller: Identity) -> None:
        """Confirm the new address with the code that was mailed to it."""
        code = await self.contacts.mailed_token(caller.subject, Purpose.EMAIL_CHANGE)
        assert code is not None
        await self.accounts.email_changes.confirm(code.token)

    async def change_password(self, caller: Identity) -> None:
        """Change the caller's password."""
        command = ChangePassword(caller.subject, PASSWORD, f"{PASSWORD}, another")
        await self.accounts.users.change_password(command, caller)

    async def add_product(self, on_hand: int) -> str:
        """Add a product with stock, and return its id."""
        command = CreateProduct(sku=uuid7(), name="Teapot", category="kitchen", price=PRICE)
        product = await self._products.create(command, self.administrator)
        self.products[product.id] = 0
        await self.restock(product.id, on_hand)
        return product.id

    async def restock(self, product_id: str, pieces: int) -> None:
        """Add pieces to the stock."""
        found = await self.store["products"].get(Stock, product_id)
        assert found is not None
        command = SetStock(product_id, found.on_hand + pieces, version=found.version)
        await self._stock.set(command, self.administrator)
        self.products[product_id] += pieces

    async def place(self, caller: Identity, lines: dict[str, int], token: str, key: str | None = None) -> Order:
        """Place an order."""
        requested = [RequestedLine(product_id, quantity) for product_id, quantity in lines.items()]
        command = PlaceOrder(requested, HOME, token, key, fingerprint=f"{lines}{token}")
        order = await self._orders.place(command, caller)
        self.orders[order.id] = order
        return order

    async def cancel(self, order_id: str, caller: Identity) -> None:
        """Cancel an order."""
        await self._orders.cancel(CancelOrder(order_id), caller)

    async def ship(self, order_id: str) -> None:
        """Ship an order."""
        await self._orders.ship(order_id, self.administrator)

    async def deliver_order(self, order_id: str) -> None:
        """Record that an order arrived."""
        await self._orders.deliver(order_id, self.administrator)

    async def refund(self, order_id: str, amount: int | None, key: str | None = None) -> Refund:
        """Refund an amount, or everything that is left if `amount` is None."""
        money = None if amount is None else Money(amount, PRICE.currency)
        command = RefundPayment(payment_id(order_id), money, idempotency_key=key)
        return await self._refunds.refund(command, self.administrator)

    async def refund_elsewhere(self, order_id: str, amount: int) -> None:
        """Refund outside of the platform, on the provider's own pages."""
        await self.bank.refund(f"re_{uuid7()}", payment_id(order_id), Money(amount, PRICE.currency))

    async def return_refund(self, order_id: str) -> None:
        """Let the customer's bank return a refund."""
        await self.bank.bounce(payment_id(order_id))

    async def dispute(self, order_id: str) -> None:
        """Let the customer's bank dispute the charge, if there is one."""
        await self.bank.dispute(payment_id(order_id))

    async def decide(self, order_id: str, *, won: bool) -> None:
        """Let the bank close the open disputes."""
        await self.bank.decide(payment_id(order_id), won=won)

    async def delete_account(self, user_id: str) -> None:
        """Delete an account on behalf of its owner."""
        await self.accounts.users.delete(DeleteUser(user_id), self.people[user_id])
        self.deleted[user_id] = self.clock.now()

    # Actions of the platform

    async def run_concurrently(self, *work: Awaitable[Any]) -> None:
        """Run all work concurrently to its end, publish the committed events, and raise the first failure."""
        self.clock.advance(timedelta(seconds=1))
        results = await asyncio.gather(*work, return_exceptions=True)
        await self.publish_committed()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def settle(self, shuffle: Callable[[list[Delivery]], None]) -> None:
        """End all faults, then deliver all events in the order of `shuffle`, and sweep, until nothing changes."""
        self.outage(on=False)
        self.provider.faults.clear()
        await self.deliver_all(shuffle)
        for order_id in self.orders:
            await self.decide(order_id, won=True)
        quiet = 0
        while quiet < 3:  # a message is retried after an hour at most, everything else sooner
            self.clock.advance(timedelta(hours=1))
            await self.run_concurrently(*(self.sweep(domain) for domain in DOMAINS for _ in range(2)))
            quiet = 0 if self.pending else quiet + 1
            await self.deliver_all(shuffle)

    async def deliver_all(self, shuffle: Callable[[list[Delivery]], None]) -> None:
        """Deliver all pending events, and the events that they cause."""
        for _ in range(50):
            if not self.pending:
                return
            deliveries = list(self.pending)
            shuffle(deliveries)
            await self.run_concurrently(*(self.deliver(delivery) for delivery in deliveries))
        raise AssertionError(f"never handled: {self.pending}")

    async def publish_committed(self) -> None:
        """Publish committed events: one delivery for each subscriber."""
        for name, store in self.store.items():
            rows = await store.outbox(_ALL, 1000)
            for row in rows:
                assert row.source == f"/{name}"
                self.pending += [Delivery(domain, row) for domain in SUBSCRIBERS[CATALOG[row.type]]]
            await store.outbox_published([row.id for row in rows])

    async def deliver(self, delivery: Delivery) -> int:
        """Deliver an event once, and return the status. An unhandled event stays pending, or is refused for good."""
        status = await self.post(delivery)
        if status == HANDLED and delivery in self.pending:
            self.pending.remove(delivery)
            self.delivered.append(delivery)
        elif status not in (HANDLED, LATER):
            self.refused.append((delivery, status))
        return status

    async def post(self, delivery: Delivery) -> int:
        """Post an event to its subscriber, and return the HTTP status."""
        # A tick's source is not a service; its signature is not checked.
        sender = signer(delivery.row.source[1:] if delivery.row.source[1:] in KEYS else "users")
        lines = (line.split(b": ", 1) for line in headers(delivery.row, sender).splitlines())
        length = (b"content-length", b"%d" % len(delivery.row.data))
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": [(name.lower(), value) for name, value in (*lines, length)],
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": delivery.row.data, "more_body": False}

        response = await self._event_functions[delivery.domain](Request(scope, receive))
        return response.status_code

    async def sweep(self, domain: str) -> int:
        """Deliver a PingSource's tick to one domain, and return the status."""
        now = self.clock.now()
        row = OutboxRow(uuid7(), SweepDue.TYPE, SweepDue.SOURCE, "", now, b'{"sweep": "all"}', "", "", "")
        return await self.post(Delivery(domain, row))

    def outage(self, *, on: bool) -> None:
        """Make all calls to other domains, the provider and the mail channel fail, or let them succeed again."""
        for part in (self.catalogue, self.instructions, self.contacts, self.provider, self.mail_channel):
            part.down = on
