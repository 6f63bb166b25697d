"""The orders service over a store in memory, with a fake catalogue and a manual clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import count
from typing import Any, Literal, TypeVar

from events.catalog import (
    Money,
    OrderCancelled,
    OrderConfirmed,
    Payload,
    PaymentCaptured,
    PaymentDeclined,
    PaymentDisputeClosed,
    PaymentDisputed,
    PaymentRefunded,
    PaymentRefundFailed,
    StockRejected,
    StockReserved,
    SweepDue,
    UserDeleted,
)
from functions.orders.clients import Catalogue
from functions.orders.domain import Order
from functions.orders.pricing import Offer, RequestedLine
from functions.orders.service import OrdersService, PlaceOrder
from functions.orders.store import MAPPINGS, OrderRepository
from functions.orders.stream_tickets import StreamTickets
from functions.orders.subscriptions import subscriptions
from functions.orders.velocity import VelocityLimits
from functions.orders.watchers import Watchers
from functions.runtime.addresses import PostalAddress
from functions.runtime.clock import Clock, ManualClock
from functions.runtime.currencies import SIMULATED, ProviderLimits
from functions.runtime.errors import unavailable
from functions.runtime.identity import ADMIN, CUSTOMER, SERVICE, Identity
from functions.runtime.inbox import inbox_record
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import AlreadyDone, Changes, IdempotencyRecord, Ref, Store

R = TypeVar("R")

ORDER_TIMEOUT = timedelta(minutes=15)
ADA = Identity("usr_" + "a" * 32, frozenset({CUSTOMER}))
BOB = Identity("usr_" + "b" * 32, frozenset({CUSTOMER}))
ADMINISTRATOR = Identity("usr_" + "c" * 32, frozenset({CUSTOMER, ADMIN}))
PAYMENTS = Identity("payments", frozenset({SERVICE}))
TEAPOT, CUP, RETIRED, YEN = (f"prd_{digit * 32}" for digit in "1234")
TOK_OK = "tok_ok"
UNKNOWN = "prd_" + "9" * 32
HOME = PostalAddress("Ada Lovelace", "12 St James's Square", "London", "SW1Y 4JH", "GB")


class FakeCatalogue:
    """Four products. Counts the calls, and fails while `failure` is set."""

    def __init__(self) -> None:
        self.calls = 0
        self.stock = {TEAPOT: 1_000, CUP: 1_000}
        self.stock_calls = 0
        self.failure: Exception | None = None
        self.products = {
            TEAPOT: Offer(TEAPOT, "TEA-1", "Teapot", Money(2_500, "EUR"), active=True),
            CUP: Offer(CUP, "CUP-1", "Cup", Money(499, "EUR"), active=True),
            RETIRED: Offer(RETIRED, "OLD-1", "Old thing", Money(100, "EUR"), active=False),
            YEN: Offer(YEN, "YEN-1", "Fan", Money(900, "JPY"), active=True),
        }

    async def offers(self, product_ids: Sequence[str]) -> dict[str, Offer]:
        self.calls += 1
        if self.failure:
            raise self.failure
        return {key: self.products[key] for key in product_ids if key in self.products}

    async def on_hand(self, product_ids: Sequence[str]) -> dict[str, int]:
        self.stock_calls += 1
        return {key: self.stock.get(key, 0) for key in product_ids}


def place_order(
    *lines: tuple[str, int], key: str | None = None, token: str = TOK_OK, address: PostalAddress | None = HOME
) -> PlaceOrder:
    """Make a command that orders these products, or one teapot."""
    requested = [RequestedLine(product, quantity) for product, quantity in lines or ((TEAPOT, 1),)]
    return PlaceOrder(requested, address, token, key, fingerprint=str(hash((*requested, token))))


class FailingStore:
    """A store whose `at_call`th transaction fails."""

    def __init__(self, store: Store, at_call: int) -> None:
        self._store = store
        self._calls_left = at_call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def transact(
        self,
        refs: Sequence[Ref],
        change: Callable[[Sequence[Any]], Changes[R]],
        *,
        idempotency: IdempotencyRecord | None = None,
        likely_new: bool = False,
    ) -> R:
        self._calls_left -= 1
        if self._calls_left == 0:
            raise unavailable("STORE_UNAVAILABLE", "Try again.")
        return await self._store.transact(refs, change, idempotency=idempotency, likely_new=likely_new)


def orders_service(
    store: Store,
    clock: Clock,
    catalogue: Catalogue,
    *,
    watchers: Watchers | None = None,
    velocity_limits: VelocityLimits | None = None,
    provider_limits: ProviderLimits = SIMULATED,
) -> OrdersService:
    """Compose the service as its bootstrap does."""
    watchers = watchers or Watchers(store, interval=5.0, limit=100, limit_each=100)
    return OrdersService(
        OrderRepository(store, velocity_limits, watchers.notify),
        catalogue,
        clock,
        watchers,
        StreamTickets(store, clock),
        provider_limits=provider_limits,
        order_timeout=ORDER_TIMEOUT,
    )


class Shop:
    """The orders service over a store in memory, which loses each race once to find changes that are not pure."""

    def __init__(self, store: Store | None = None, watch_interval: float = 5.0) -> None:
        self.clock = ManualClock()
        self.memory = MemoryStore(MAPPINGS, self.clock, lost_races=1)
        self.store: Store = store or self.memory
        self.catalogue = FakeCatalogue()
        self.watchers = Watchers(self.store, watch_interval, limit=100, limit_each=100)
        self.orders = self.compose()
        self._event_ids = count(1)

    def compose(
        self,
        *,
        store: Store | None = None,
        watchers: Watchers | None = None,
        velocity_limits: VelocityLimits | None = None,
        provider_limits: ProviderLimits = SIMULATED,
    ) -> OrdersService:
        """Return a service that differs from `orders` in what is given, over the same clock and catalogue."""
        return orders_service(
            store or self.store,
            self.clock,
            self.catalogue,
            watchers=watchers or self.watchers,
            velocity_limits=velocity_limits,
            provider_limits=provider_limits,
        )

    async def place(self, command: PlaceOrder | None = None, caller: Identity = ADA) -> Order:
        return await self.orders.place(command or place_order(), caller)

    async def receive(self, event: Payload, event_id: str = "") -> bool:
        """Deliver an event, a new one without `event_id`; returns False if it was handled before."""
        event_id = event_id or f"event-{next(self._event_ids)}"
        inbox = inbox_record(event.SOURCE, event_id, self.clock.now())
        try:
            await subscriptions(self.orders)[type(event)](event, inbox)
        except AlreadyDone:
            return False
        return True

    async def sweep(self) -> None:
        await self.receive(SweepDue())

    async def read(self, order_id: str) -> Order:
        order = await self.store.get(Order, order_id)
        assert order is not None
        return order

    async def confirmed(self, caller: Identity = ADA) -> Order:
        """Place an order that is reserved and paid, and return it."""
        order = await self.place(caller=caller)
        await self.receive(reserved(order))
        await self.receive(captured(order))
        return await self.read(order.id)

    def recorded(self, kind: type[Payload]) -> list[Payload]:
        """Return the events of one type that were emitted so far."""
        return [event for event in self.memory.events if isinstance(event, kind)]

    @property
    def confirmations(self) -> int:
        return len(self.recorded(OrderConfirmed))

    @property
    def cancellations(self) -> list[str]:
        """The reasons of all OrderCancelled events."""
        return [event.reason for event in self.memory.events if isinstance(event, OrderCancelled)]


def reserved(order: Order) -> StockReserved:
    return StockReserved(order_id=order.id, expires_at=order.created_at + ORDER_TIMEOUT)


def rejected(order: Order, reason: str = "OUT_OF_STOCK") -> StockRejected:
    return StockRejected(order_id=order.id, reason=reason)


def captured(order: Order) -> PaymentCaptured:
    return PaymentCaptured(order_id=order.id, payment_id="pay_" + order.id[4:], amount=order.total)


def declined(order: Order, reason: str = "PAYMENT_DECLINED") -> PaymentDeclined:
    return PaymentDeclined(order_id=order.id, payment_id="pay_" + order.id[4:], reason=reason)


def refunded(order: Order, amount: int, refund: str = "1") -> PaymentRefunded:
    money = Money(amount, order.total.currency)
    return PaymentRefunded(
        order_id=order.id,
        user_id=order.user_id,
        payment_id="pay_" + order.id[4:],
        refund_id="ref_" + refund * 32,
        amount=money,
        refunded=money,
    )


def refund_failed(order: Order, amount: int, refund: str = "1") -> PaymentRefundFailed:
    money = Money(amount, order.total.currency)
    return PaymentRefundFailed(
        order_id=order.id,
        payment_id="pay_" + order.id[4:],
        refund_id="ref_" + refund * 32,
        amount=money,
        refunded=Money(0, money.currency),
    )


def disputed(order: Order, amount: int | None = None) -> PaymentDisputed:
    money = Money(amount or order.total.amount, order.total.currency)
    return PaymentDisputed(
        order_id=order.id, payment_id="pay_" + order.id[4:], dispute_id="dsp_" + "1" * 32, amount=money
    )


def decided(order: Order, outcome: Literal["WON", "LOST"], amount: int | None = None) -> PaymentDisputeClosed:
    money = Money(amount or order.total.amount, order.total.currency)
    return PaymentDisputeClosed(
        order_id=order.id,
        payment_id="pay_" + order.id[4:],
        dispute_id="dsp_" + "1" * 32,
        amount=money,
        outcome=outcome,
    )


def deleted(caller: Identity) -> UserDeleted:
    return UserDeleted(user_id=caller.subject)
