"""A shop for the tests: orders over a store in memory, with a catalogue and a clock that do what they are told."""

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
from functions.orders import service
from functions.orders.checkout import Item, Offer, Placement
from functions.orders.domain import Order
from functions.orders.store import MAPPINGS, Orders
from functions.orders.subscriptions import subscriptions
from functions.orders.watching import Watchers
from functions.runtime.addresses import PostalAddress
from functions.runtime.clock import ManualClock
from functions.runtime.errors import unavailable
from functions.runtime.identity import ADMIN, CUSTOMER, SERVICE, Identity
from functions.runtime.inbox import inbox_record
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import AlreadyDone, Changes, IdempotencyRecord, Ref, Store

R = TypeVar("R")

PATIENCE = timedelta(minutes=15)
ADA = Identity("usr_" + "a" * 32, frozenset({CUSTOMER}))
BOB = Identity("usr_" + "b" * 32, frozenset({CUSTOMER}))
BOSS = Identity("usr_" + "c" * 32, frozenset({CUSTOMER, ADMIN}))
PAYMENTS = Identity("payments", frozenset({SERVICE}))
TEAPOT, CUP, RETIRED, YEN = (f"prd_{digit * 32}" for digit in "1234")
TOK_OK = "tok_ok"
UNKNOWN = "prd_" + "9" * 32
HOME = PostalAddress("Ada Lovelace", "12 St James's Square", "London", "SW1Y 4JH", "GB")


class FakeCatalogue:
    """Four products; counts how often it is asked, and fails when told."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: Exception | None = None
        self.products = {
            TEAPOT: Offer(TEAPOT, "TEA-1", "Teapot", Money(2_500, "EUR"), active=True),
            CUP: Offer(CUP, "CUP-1", "Cup", Money(499, "EUR"), active=True),
            RETIRED: Offer(RETIRED, "OLD-1", "Old thing", Money(100, "EUR"), active=False),
            YEN: Offer(YEN, "YEN-1", "Fan", Money(900, "JPY"), active=True),
        }

    async def offers(self, product_ids: Sequence[str]) -> dict[str, Offer]:
        self.asked += 1
        if self.failure:
            raise self.failure
        return {wanted: self.products[wanted] for wanted in product_ids if wanted in self.products}


def wanted(
    *items: tuple[str, int], key: str | None = None, token: str = TOK_OK, address: PostalAddress | None = HOME
) -> Placement:
    """An order as somebody asks for it; one teapot where nothing is said."""
    lines = [Item(product, quantity) for product, quantity in items or ((TEAPOT, 1),)]
    return Placement(lines, address, token, key, fingerprint=str(hash((*lines, token))))


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
    ) -> R:
        self._calls_left -= 1
        if self._calls_left == 0:
            raise unavailable("STORE_UNAVAILABLE", "Try again.")
        return await self._store.transact(refs, change, idempotency=idempotency)


class World:
    """Everything together; `lost_races` finds changes that are not pure."""

    def __init__(self, store: Store | None = None, watch_interval: float = 5.0) -> None:
        self.clock = ManualClock()
        self.memory = MemoryStore(MAPPINGS, self.clock, lost_races=1)
        self.store: Store = store or self.memory
        self.catalogue = FakeCatalogue()
        self.watchers = Watchers(self.store, watch_interval, limit=100, limit_each=100)
        self.orders = Orders(self.store, self.watchers.changed)
        self.handlers = subscriptions(self.orders, self.clock, PATIENCE)
        self._event_ids = count(1)

    async def place(self, placement: Placement | None = None, caller: Identity = ADA) -> Order:
        return await service.place(self.orders, self.catalogue, self.clock, caller, placement or wanted())

    async def hear(self, event: Payload, event_id: str = "") -> bool:
        """Deliver an event, as a new one unless `event_id` says which; whether it was not handled before."""
        event_id = event_id or f"event-{next(self._event_ids)}"
        inbox = inbox_record(event.SOURCE, event_id, self.clock.now())
        try:
            await self.handlers[type(event)](event, inbox)
        except AlreadyDone:
            return False
        return True

    async def sweep(self) -> None:
        await self.hear(SweepDue())

    async def read(self, order_id: str) -> Order:
        return await self.orders.get(order_id)

    async def confirmed(self, caller: Identity = ADA) -> Order:
        """An order that is reserved and paid."""
        order = await self.place(caller=caller)
        await self.hear(reserved(order))
        await self.hear(captured(order))
        return await self.read(order.id)

    def recorded(self, kind: type[Payload]) -> list[Payload]:
        """The events of one type that were emitted so far."""
        return [event for event in self.memory.events if isinstance(event, kind)]

    @property
    def confirmations(self) -> int:
        return len(self.recorded(OrderConfirmed))

    @property
    def cancellations(self) -> list[str]:
        """The reasons of all OrderCancelled events."""
        return [event.reason for event in self.memory.events if isinstance(event, OrderCancelled)]


def reserved(order: Order) -> StockReserved:
    return StockReserved(order_id=order.id, expires_at=order.created_at + PATIENCE)


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
