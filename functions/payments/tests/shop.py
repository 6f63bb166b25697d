"""A payments service over stores in memory, with a fake orders service and a provider that fails on request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from events.catalog import Money, OrderCancelled, Payload, StockReserved, SweepDue, UserDeleted
from functions.payments.clients import Instruction
from functions.payments.domain import Payment, Refund, cancellation_refund_id, payment_id
from functions.payments.providers import simulated
from functions.payments.providers.port import (
    ChargeOutcome,
    LedgerEntry,
    PaymentProvider,
    RefundOutcome,
    Statement,
    Webhook,
    provider_unavailable,
)
from functions.payments.refunds import RefundsService
from functions.payments.service import PaymentsService
from functions.payments.store import MAPPINGS
from functions.payments.subscriptions import subscriptions
from functions.runtime.clock import ManualClock
from functions.runtime.currencies import SIMULATED, ProviderLimits
from functions.runtime.errors import not_found, unavailable
from functions.runtime.inbox import inbox_record
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import AlreadyDone, Page

ORDER = "ord_" + "a" * 32
PAYER = "usr_" + "b" * 32
PRICE = Money(5000, "EUR")
TOKEN = "tok_ok"
SETTLE_AFTER = timedelta(seconds=15)


class FakeOrders:
    """The orders service: it knows the orders that were placed here."""

    def __init__(self) -> None:
        self.instructions: dict[str, Instruction] = {}
        self.down = False
        self.asked = 0

    def place(self, order_id: str, token: str = TOKEN, amount: Money = PRICE) -> None:
        self.instructions[order_id] = Instruction(order_id, PAYER, amount, True, token)

    def cancel(self, order_id: str) -> None:
        """Cancel an order, which deletes its token."""
        known = self.instructions[order_id]
        self.instructions[order_id] = Instruction(order_id, known.user_id, known.amount, False)

    async def payment_instruction(self, order_id: str) -> Instruction:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise unavailable("PEER_UNAVAILABLE", "Orders does not answer.")
        if order_id not in self.instructions:
            raise not_found("Order", "ORDER_NOT_FOUND")
        return self.instructions[order_id]


class FaultyProvider:
    """A provider over an unreliable connection: each call consumes one of `faults`.

    `before` loses the call; `after` loses the answer of a call that took effect.
    """

    def __init__(self, provider: PaymentProvider) -> None:
        self.provider = provider
        self.faults: list[str] = []
        self.down = False
        self.refuses_refunds = False
        self.calls: list[str] = []

    async def charge(self, key: str, amount: Money, token: str) -> ChargeOutcome:
        self.calls.append("charge")
        fault = await self._fault()
        outcome = await self.provider.charge(key, amount, token)
        await self._lose(fault)
        return outcome

    async def void(self, key: str) -> ChargeOutcome:
        self.calls.append("void")
        fault = await self._fault()
        outcome = await self.provider.void(key)
        await self._lose(fault)
        return outcome

    async def refund(self, key: str, charge_key: str, amount: Money) -> RefundOutcome:
        self.calls.append("refund")
        fault = await self._fault()
        if self.refuses_refunds:
            return RefundOutcome.REFUSED
        outcome = await self.provider.refund(key, charge_key, amount)
        await self._lose(fault)
        return outcome

    async def statement(self, charge_key: str) -> Statement:
        await self._check_up()
        return await self.provider.statement(charge_key)

    async def find_charge_key(self, provider_id: str) -> str:
        return await self.provider.find_charge_key(provider_id)

    async def changed_charges(self, since: datetime, until: datetime) -> Sequence[str]:
        await self._check_up()
        return await self.provider.changed_charges(since, until)

    async def ledger(self, limit: int, cursor: str | None) -> Page[LedgerEntry]:
        return await self.provider.ledger(limit, cursor)

    async def close(self) -> None:
        await self.provider.close()

    async def _check_up(self) -> None:
        await asyncio.sleep(0)
        if self.down:
            raise provider_unavailable()

    async def _fault(self) -> str:
        await asyncio.sleep(0)  # other tasks run here, as during a real call
        fault = self.faults.pop(0) if self.faults else ""
        if self.down or fault == "before":
            raise provider_unavailable()
        return fault

    @staticmethod
    async def _lose(fault: str) -> None:
        await asyncio.sleep(0)
        if fault == "after":
            raise provider_unavailable()


class Bank(Protocol):
    """Actions at the provider that the shop does not make: by staff in the dashboard, and by the payer's bank."""

    async def refund(self, refund_id: str, charge_key: str, amount: Money) -> None:
        """Refund a charge in the provider's dashboard, if that much is left of it."""

    async def dispute(self, charge_key: str) -> None:
        """Dispute what is left of a charge."""

    async def decide(self, charge_key: str, *, won: bool) -> None:
        """Close the open disputes of a charge."""

    async def bounce(self, charge_key: str) -> set[str]:
        """Return the money of a refund. Returns the charge's key if there was one."""

    async def net(self) -> int:
        """Return the sum charged minus all that was refunded or lost."""


class SimulatedBank:
    """See Bank. It acts at the simulated provider."""

    def __init__(self, provider: simulated.SimulatedProvider) -> None:
        self._provider = provider

    async def refund(self, refund_id: str, charge_key: str, amount: Money) -> None:
        await self._provider.refund_at_provider(refund_id, charge_key, amount)

    async def dispute(self, charge_key: str) -> None:
        entries = await self._entries(charge_key)
        charge = next((entry for entry in entries if entry.kind == "charge"), None)
        already = any(entry.outcome == simulated.OPEN for entry in entries)
        if charge is not None and not already and charge.returned < charge.amount.amount:
            left = Money(charge.amount.amount - charge.returned, charge.amount.currency)
            await self._provider.dispute(f"dp_{len(entries)}_{charge_key}", charge_key, left)

    async def decide(self, charge_key: str, *, won: bool) -> None:
        for entry in await self._entries(charge_key):
            if entry.outcome == simulated.OPEN:
                await self._provider.decide(entry.id, simulated.WON if won else simulated.LOST)

    async def bounce(self, charge_key: str) -> set[str]:
        for entry in await self._entries(charge_key):
            if entry.kind == "refund" and entry.outcome == simulated.SUCCEEDED:
                await self._provider.return_refund(entry.id)
                return {charge_key}
        return set()

    async def net(self) -> int:
        entries = (await self._provider.ledger(100, None)).items
        taken = sum(entry.amount.amount for entry in entries if entry.kind == "charge")
        lost = {("refund", simulated.SUCCEEDED), ("dispute", simulated.LOST)}
        return taken - sum(entry.amount.amount for entry in entries if (entry.kind, entry.outcome) in lost)

    async def _entries(self, charge_key: str) -> list[LedgerEntry]:
        entries = (await self._provider.ledger(100, None)).items
        return [entry for entry in entries if entry.payment_id == charge_key]


class Shop:
    """A payments service that receives events. An event has the same id each time, unless one is given."""

    def __init__(
        self,
        lost_races: int = 0,
        provider: PaymentProvider | None = None,
        webhook: Webhook | None = None,
        limits: ProviderLimits = SIMULATED,
    ) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(MAPPINGS, self.clock, lost_races=lost_races)
        self.orders = FakeOrders()
        self.ledger_store = MemoryStore(simulated.MAPPINGS, self.clock)
        simulation = simulated.SimulatedProvider(self.ledger_store, self.clock, slow_seconds=0)
        self.bank: Bank = SimulatedBank(simulation)
        self.bounced = set[str]()
        self.provider = FaultyProvider(provider or simulation)
        self.refunds = RefundsService(self.store, self.provider, self.clock, settle_after=SETTLE_AFTER, limits=limits)
        self.payments = PaymentsService(
            self.store,
            self.provider,
            self.orders,
            self.refunds,
            self.clock,
            settle_after=SETTLE_AFTER,
            webhook=webhook,
        )
        self._handlers = subscriptions(self.payments)

    async def receive(self, payload: Payload, event_id: str = "") -> None:
        """Deliver an event. A duplicate is acknowledged, as by the event server."""
        event_id = event_id or f"{payload.TYPE}/{payload.subject}"
        inbox = inbox_record(payload.SOURCE, event_id, self.clock.now())
        try:
            await self._handlers[type(payload)](payload, inbox)
        except AlreadyDone:
            return

    async def reserve(self, order_id: str = ORDER) -> None:
        expires = self.clock.now() + timedelta(minutes=15)
        await self.receive(StockReserved(order_id=order_id, expires_at=expires))

    async def cancel(self, order_id: str = ORDER, user_id: str = PAYER) -> None:
        if order_id in self.orders.instructions:
            self.orders.cancel(order_id)
        await self.receive(OrderCancelled(order_id=order_id, user_id=user_id, reason="CUSTOMER_REQUEST"))

    async def forget(self, user_id: str = PAYER) -> None:
        await self.receive(UserDeleted(user_id=user_id))

    async def sweep(self, after: timedelta = timedelta(minutes=1)) -> None:
        self.clock.advance(after)
        await self.receive(SweepDue())

    async def payment(self, order_id: str = ORDER) -> Payment:
        found = await self.store.get(Payment, payment_id(order_id))
        assert found is not None
        return found

    async def automatic_refund(self, order_id: str = ORDER) -> Refund | None:
        return await self.store.get(Refund, cancellation_refund_id(order_id))

    async def ledger(self) -> list[LedgerEntry]:
        return (await self.provider.ledger(100, None)).items

    async def net(self) -> int:
        """Return the sum charged minus all that was refunded or lost."""
        return await self.bank.net()

    def events(self, *kinds: type[Payload]) -> Sequence[Payload]:
        return [event for event in self.store.events if not kinds or isinstance(event, kinds)]
