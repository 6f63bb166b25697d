"""A simulated provider, which moves no money but keeps a durable ledger. It is the default, for use without Stripe.

The token selects the behaviour:

| token | what happens |
|---|---|
| tok_ok | captured |
| tok_declined, any unknown token | declined: PAYMENT_DECLINED |
| tok_insufficient_funds | declined: INSUFFICIENT_FUNDS |
| tok_slow | captured, after `slow_seconds` |
| tok_flaky | unavailable twice, counted per key, then captured |
| tok_timeout | captured, but the first answer is lost: unavailable |
| tok_refunded | captured, then refunded at the provider, not by the shop |
| tok_disputed | captured, then disputed by the payer's bank |
| tok_dispute_won, tok_dispute_lost | captured, then disputed, and decided after `DISPUTE_DURATION` |

As with a real provider, `statement` and `changed_charges` also report refunds and disputes that the shop did not make.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from events.catalog import Money
from functions.payments.providers.port import (
    NO_MONEY,
    ChargeOutcome,
    DisputeRecord,
    LedgerEntry,
    RefundOutcome,
    RefundRecord,
    RefundState,
    Statement,
    provider_unavailable,
)
from functions.runtime.clock import Clock, sortable
from functions.runtime.paging import all_pages
from functions.runtime.store.port import Changes, EntityMapping, IndexKey, Page, Ref, Store

SUCCEEDED = "succeeded"
OPEN, WON, LOST = "open", "won", "lost"
DISPUTE_DURATION = timedelta(minutes=1)
NEVER = datetime.max.replace(tzinfo=UTC)
_FOLLOW_UPS = {
    "tok_refunded": ("refund", SUCCEEDED, timedelta()),
    "tok_disputed": ("dispute", OPEN, timedelta()),
    "tok_dispute_won": ("dispute", WON, DISPUTE_DURATION),
    "tok_dispute_lost": ("dispute", LOST, DISPUTE_DURATION),
}
"""The entry that follows a charge, by token: its kind, its outcome, and the delay after which it takes effect."""
_TROUBLESOME = frozenset({"tok_slow", "tok_flaky"})
FLAKY_FAILURES = 2

_CHARGE_RESULTS = {
    "tok_ok": SUCCEEDED,
    "tok_slow": SUCCEEDED,
    "tok_flaky": SUCCEEDED,
    "tok_timeout": SUCCEEDED,
    "tok_insufficient_funds": "insufficient_funds",
    **dict.fromkeys(_FOLLOW_UPS, SUCCEEDED),
}
_OUTCOMES = {
    SUCCEEDED: ChargeOutcome.CAPTURED,
    "insufficient_funds": ChargeOutcome.INSUFFICIENT_FUNDS,
    "voided": ChargeOutcome.VOIDED,
}


@dataclass
class Failures:
    """The number of times that a charge with this key was made to fail."""

    id: str
    count: int = 0
    version: int = 0


def _indexes(entry: LedgerEntry) -> Iterable[IndexKey]:
    yield IndexKey("all", "all", sortable(entry.at))
    if entry.kind != "charge":
        yield IndexKey("charge", entry.payment_id, sortable(entry.at))
    if entry.moved_at is not None:
        for at in {entry.at, entry.moved_at}:
            yield IndexKey("news", "all", sortable(at))


MAPPINGS = (EntityMapping(LedgerEntry, "entry", _indexes), EntityMapping(Failures, "failures"))


class SimulatedProvider:
    """See PaymentProvider. `store` holds only the ledger, which can be compared with the payments."""

    def __init__(self, store: Store, clock: Clock, slow_seconds: float = 2.0) -> None:
        self._store = store
        self._clock = clock
        self._slow_seconds = slow_seconds

    async def charge(self, key: str, amount: Money, token: str) -> ChargeOutcome:
        if token in _TROUBLESOME and await self._store.get(LedgerEntry, key) is None:
            await self._delay_or_fail(key, token)
        result = _CHARGE_RESULTS.get(token, "card_declined")
        moved = amount if result == SUCCEEDED else Money(0, amount.currency)
        entry, is_new = await self._record_charge(key, moved, result, _FOLLOW_UPS.get(token))
        if is_new and token == "tok_timeout":  # noqa: S105 - the name of a test token
            raise provider_unavailable()
        return _outcome(entry)

    async def void(self, key: str) -> ChargeOutcome:
        entry, _ = await self._record_charge(key, NO_MONEY, "voided")
        return _outcome(entry)

    async def refund(self, key: str, charge_key: str, amount: Money) -> RefundOutcome:
        now = self._clock.now()

        def change(found: Sequence[Any]) -> Changes[LedgerEntry]:
            entry, charge = found
            if entry is not None:
                return Changes(entry)
            refusal = _refusal(charge, amount, now)
            moved = Money(0, amount.currency) if refusal else amount
            entry = LedgerEntry(key, "refund", charge_key, moved, refusal or SUCCEEDED, now)
            if refusal:
                return Changes(entry, put=[entry])
            charge.returned += amount.amount
            return Changes(entry, put=[entry, charge])

        entry = await self._store.transact([Ref(LedgerEntry, key), Ref(LedgerEntry, charge_key)], change)
        return RefundOutcome.SUCCEEDED if entry.outcome == SUCCEEDED else RefundOutcome.REFUSED

    async def statement(self, charge_key: str) -> Statement:
        now, refunds, disputes = self._clock.now(), list[RefundRecord](), list[DisputeRecord]()

        async def read(cursor: str | None) -> Page[LedgerEntry]:
            return await self._store.page(LedgerEntry, "charge", charge_key, limit=100, cursor=cursor)

        async for entries in all_pages(read):
            for entry in entries:
                if entry.kind == "dispute":
                    decided = entry.moved_at is not None and entry.moved_at <= now and entry.outcome != OPEN
                    state = entry.outcome.upper() if decided else "OPEN"
                    disputes.append(DisputeRecord(entry.id, entry.amount, "fraudulent", state, False))
                elif entry.outcome in (SUCCEEDED, "returned"):
                    ours = entry.id if entry.moved_at is None or entry.id.startswith("ref_") else ""
                    state_of = RefundState.SUCCEEDED if entry.outcome == SUCCEEDED else RefundState.FAILED
                    refunds.append(RefundRecord(entry.id, ours, entry.amount, state_of))
        return Statement(refunds, disputes)

    async def find_charge_key(self, provider_id: str) -> str:
        """See PaymentProvider. The provider's id of a charge is its key."""
        entry = await self._store.get(LedgerEntry, provider_id)
        return "" if entry is None else entry.payment_id

    async def changed_charges(self, since: datetime, until: datetime) -> Sequence[str]:
        found: dict[str, None] = {}

        async def read(cursor: str | None) -> Page[LedgerEntry]:
            return await self._store.page(
                LedgerEntry, "news", "all", limit=100, cursor=cursor, descending=True, until=sortable(until)
            )

        async for entries in all_pages(read):
            for entry in entries:
                if max(entry.at, min(entry.moved_at or entry.at, until)) < since:
                    return list(found)
                found[entry.payment_id] = None
        return list(found)

    # Actions at the provider that the shop does not start.

    async def refund_at_provider(self, refund_id: str, charge_key: str, amount: Money) -> bool:
        """Refund `amount` of a charge, as in the provider's dashboard. Returns False if it is refused.

        A repetition with the same `refund_id` refunds nothing more.
        """
        now = self._clock.now()

        def change(found: Sequence[Any]) -> Changes[bool]:
            entry, charge = found
            if entry is not None or _refusal(charge, amount, now):
                return Changes(entry is not None)
            charge.returned += amount.amount
            entry = LedgerEntry(refund_id, "refund", charge_key, amount, SUCCEEDED, now, moved_at=now)
            return Changes(True, put=[entry, charge])

        return await self._store.transact([Ref(LedgerEntry, refund_id), Ref(LedgerEntry, charge_key)], change)

    async def return_refund(self, refund_id: str) -> None:
        """Return the money of a refund, as the payer's bank may do."""
        now = self._clock.now()
        known = await self._store.get(LedgerEntry, refund_id)
        charge_key = known.payment_id if known else refund_id

        def change(found: Sequence[Any]) -> Changes[None]:
            entry, charge = found
            if entry is None or entry.outcome != SUCCEEDED:
                return Changes(None)
            entry.outcome, entry.moved_at = "returned", now
            charge.returned -= entry.amount.amount
            return Changes(None, put=[entry, charge])

        await self._store.transact([Ref(LedgerEntry, refund_id), Ref(LedgerEntry, charge_key)], change)

    async def dispute(self, dispute_id: str, charge_key: str, amount: Money) -> bool:
        """Dispute and take back `amount` of a charge, as the payer's bank may do. Returns False without a charge."""
        now = self._clock.now()

        def change(found: Sequence[Any]) -> Changes[bool]:
            entry, charge = found
            if entry is not None or charge is None or charge.outcome != SUCCEEDED:
                return Changes(entry is not None)
            charge.locked_until = NEVER
            charge.returned += amount.amount
            entry = LedgerEntry(dispute_id, "dispute", charge_key, amount, OPEN, now, moved_at=now)
            return Changes(True, put=[entry, charge])

        return await self._store.transact([Ref(LedgerEntry, dispute_id), Ref(LedgerEntry, charge_key)], change)

    async def decide(self, dispute_id: str, outcome: str) -> None:
        """Close a dispute as the bank does. After WON the shop has the money again; after LOST the payer keeps it."""
        now = self._clock.now()
        known = await self._store.get(LedgerEntry, dispute_id)
        charge_key = known.payment_id if known else dispute_id

        def change(found: Sequence[Any]) -> Changes[None]:
            entry, charge = found
            if entry is None or entry.outcome != OPEN:
                return Changes(None)
            entry.outcome, entry.moved_at, charge.locked_until = outcome, now, None
            charge.returned -= entry.amount.amount if outcome == WON else 0
            return Changes(None, put=[entry, charge])

        await self._store.transact([Ref(LedgerEntry, dispute_id), Ref(LedgerEntry, charge_key)], change)

    async def ledger(self, limit: int, cursor: str | None) -> Page[LedgerEntry]:
        return await self._store.page(LedgerEntry, "all", "all", limit=limit, cursor=cursor)

    async def close(self) -> None:
        await self._store.close()

    async def _record_charge(
        self, key: str, moved: Money, result: str, follow_up: tuple[str, str, timedelta] | None = None
    ) -> tuple[LedgerEntry, bool]:
        """Return the charge entry of `key`, and whether this call made it."""
        now = self._clock.now()
        follow_up_id = f"sim_{key}"

        def change(found: Sequence[Any]) -> Changes[tuple[LedgerEntry, bool]]:
            if found[0] is not None:
                return Changes((found[0], False))
            entry = LedgerEntry(key, "charge", key, moved, result, now)
            if follow_up is None:
                return Changes((entry, True), put=[entry])
            kind, outcome, delay = follow_up
            decided = now + delay
            if kind == "refund":
                entry.returned = moved.amount
            else:
                entry.locked_until = decided if outcome != OPEN else NEVER
                entry.returned = 0 if outcome == WON else moved.amount
            after = LedgerEntry(follow_up_id, kind, key, moved, outcome, now, moved_at=decided)
            return Changes((entry, True), put=[entry, after])

        refs = [Ref(LedgerEntry, key), Ref(LedgerEntry, follow_up_id)]
        return await self._store.transact(refs, change, likely_new=True)

    async def _delay_or_fail(self, key: str, token: str) -> None:
        if token == "tok_slow":  # noqa: S105 - the name of a test token
            await asyncio.sleep(self._slow_seconds)
        if token == "tok_flaky":  # noqa: S105 - the name of a test token
            failures = await self._store.update(Failures, key, lambda found: (_count_failure(found, key), ()))
            if failures.count <= FLAKY_FAILURES:
                raise provider_unavailable()


def _outcome(entry: LedgerEntry) -> ChargeOutcome:
    return _OUTCOMES.get(entry.outcome, ChargeOutcome.PAYMENT_DECLINED)


def _count_failure(found: Failures | None, key: str) -> Failures:
    failures = found or Failures(key)
    failures.count += 1
    return failures


def _refusal(charge: LedgerEntry | None, amount: Money, now: datetime) -> str:
    """Return why this refund is refused, or an empty string."""
    if charge is None or charge.outcome != SUCCEEDED:
        return "nothing_charged"
    if charge.amount.currency != amount.currency:
        return "currency_mismatch"
    if charge.locked_until is not None and now < charge.locked_until:
        return "disputed"
    return "exceeds_charge" if charge.returned + amount.amount > charge.amount.amount else ""
