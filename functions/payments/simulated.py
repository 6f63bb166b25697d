"""A provider that moves no money but keeps books as if it did, durably: embedded default, and for tests.

The token decides what happens:

| token | what happens |
|---|---|
| tok_ok | captured |
| tok_declined | declined: PAYMENT_DECLINED, as any token it does not know |
| tok_insufficient_funds | declined: INSUFFICIENT_FUNDS |
| tok_slow | captured, after `slow_seconds` |
| tok_flaky | unavailable twice, counted per key, then captured |
| tok_timeout | captured, but the first answer is lost: unavailable |
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from events.catalog import Money
from functions.payments.provider import (
    NO_MONEY,
    ChargeOutcome,
    LedgerEntry,
    RefundOutcome,
    provider_unavailable,
)
from functions.payments.store import stamp
from functions.runtime.clock import Clock
from functions.runtime.store.port import Changes, IndexKey, Kind, Page, Ref, Store

SUCCEEDED = "succeeded"
FLAKY_FAILURES = 2

_VERDICTS = {
    "tok_ok": SUCCEEDED,
    "tok_slow": SUCCEEDED,
    "tok_flaky": SUCCEEDED,
    "tok_timeout": SUCCEEDED,
    "tok_insufficient_funds": "insufficient_funds",
}
_OUTCOMES = {
    SUCCEEDED: ChargeOutcome.CAPTURED,
    "insufficient_funds": ChargeOutcome.INSUFFICIENT_FUNDS,
    "voided": ChargeOutcome.VOIDED,
}


@dataclass
class Failures:
    """How often a charge with this key has failed on purpose."""

    id: str
    count: int = 0
    version: int = 0


KINDS = (
    Kind(LedgerEntry, "entry", lambda entry: [IndexKey("all", "all", stamp(entry.at))]),
    Kind(Failures, "failures"),
)


class SimulatedProvider:
    """See Provider; `store` holds the books and nothing else: they can be compared with the payments."""

    def __init__(self, store: Store, clock: Clock, slow_seconds: float = 2.0) -> None:
        self._store = store
        self._clock = clock
        self._slow_seconds = slow_seconds

    async def charge(self, key: str, amount: Money, token: str) -> ChargeOutcome:
        """See Provider."""
        known = await self._store.get(LedgerEntry, key)
        if known is None:
            await self._misbehave(key, token)
        verdict = _VERDICTS.get(token, "card_declined")
        moved = amount if verdict == SUCCEEDED else Money(0, amount.currency)
        entry, made = await self._enter(key, moved, verdict)
        if made and token == "tok_timeout":  # noqa: S105 - the name of a test token
            raise provider_unavailable()
        return _outcome(entry)

    async def void(self, key: str) -> ChargeOutcome:
        """See Provider."""
        entry, _ = await self._enter(key, NO_MONEY, "voided")
        return _outcome(entry)

    async def refund(self, key: str, charge_key: str, amount: Money) -> RefundOutcome:
        """See Provider."""
        now = self._clock.now()

        def change(found: Sequence[Any]) -> Changes[LedgerEntry]:
            entry, charge = found
            if entry is not None:
                return Changes(entry)
            refusal = _refusal(charge, amount)
            moved = Money(0, amount.currency) if refusal else amount
            entry = LedgerEntry(key, "refund", charge_key, moved, refusal or SUCCEEDED, now)
            if refusal:
                return Changes(entry, put=[entry])
            charge.returned += amount.amount
            return Changes(entry, put=[entry, charge])

        entry = await self._store.transact([Ref(LedgerEntry, key), Ref(LedgerEntry, charge_key)], change)
        return RefundOutcome.SUCCEEDED if entry.outcome == SUCCEEDED else RefundOutcome.REFUSED

    async def ledger(self, limit: int, cursor: str | None) -> Page[LedgerEntry]:
        """See Provider."""
        return await self._store.page(LedgerEntry, "all", "all", limit=limit, cursor=cursor)

    async def close(self) -> None:
        """See Provider."""
        await self._store.close()

    async def _enter(self, key: str, moved: Money, verdict: str) -> tuple[LedgerEntry, bool]:
        """The charge entry of `key`, and whether this call made it."""
        now = self._clock.now()

        def change(found: Sequence[Any]) -> Changes[tuple[LedgerEntry, bool]]:
            if found[0] is not None:
                return Changes((found[0], False))
            entry = LedgerEntry(key, "charge", key, moved, verdict, now)
            return Changes((entry, True), put=[entry])

        return await self._store.transact([Ref(LedgerEntry, key)], change)

    async def _misbehave(self, key: str, token: str) -> None:
        if token == "tok_slow":  # noqa: S105 - the name of a test token
            await asyncio.sleep(self._slow_seconds)
        if token == "tok_flaky":  # noqa: S105 - the name of a test token
            failures = await self._store.update(Failures, key, lambda found: (_one_more(found, key), ()))
            if failures.count <= FLAKY_FAILURES:
                raise provider_unavailable()


def _outcome(entry: LedgerEntry) -> ChargeOutcome:
    return _OUTCOMES.get(entry.outcome, ChargeOutcome.PAYMENT_DECLINED)


def _one_more(found: Failures | None, key: str) -> Failures:
    failures = found or Failures(key)
    failures.count += 1
    return failures


def _refusal(charge: LedgerEntry | None, amount: Money) -> str:
    """Why this refund is refused; empty when it is not."""
    if charge is None or charge.outcome != SUCCEEDED:
        return "nothing_charged"
    if charge.amount.currency != amount.currency:
        return "currency_mismatch"
    return "exceeds_charge" if charge.returned + amount.amount > charge.amount.amount else ""
