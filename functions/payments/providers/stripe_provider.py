"""Stripe as a payment provider.

A charge is a PaymentIntent. The intent is created first, which charges nothing. Its id is committed in the store before
the intent is confirmed. If a charge and a void race, the store decides between them before that commit, and Stripe's
state of the intent after it. So a repeated key always leads to the same intent, and an intent is charged at most once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from events.catalog import Money
from functions.payments.providers.port import (
    NO_MONEY,
    ChargeOutcome,
    LedgerEntry,
    RefundOutcome,
    Statement,
    provider_unavailable,
)
from functions.payments.providers.stripe_api import ChargeDeclined, Intent, StripeApi, StripeRefused
from functions.runtime.clock import Clock, sortable
from functions.runtime.store.port import Changes, EntityMapping, IndexKey, Page, Ref, Store

_MOVED = (ChargeOutcome.CAPTURED, RefundOutcome.SUCCEEDED)


@dataclass
class Movement:
    """A charge or refund that was requested from Stripe, and its outcome. The id is the idempotency key.

    `stripe_id` is the id of the PaymentIntent or Refund, once known. `outcome` is a ChargeOutcome or RefundOutcome. It
    is empty until Stripe's answer is final, and never changes afterwards.
    """

    id: str
    kind: str
    payment_id: str
    amount: Money
    at: datetime
    stripe_id: str = ""
    outcome: str = ""
    version: int = 0


def _indexes(movement: Movement) -> Iterable[IndexKey]:
    if movement.outcome:
        yield IndexKey("all", "all", sortable(movement.at))


MAPPINGS = (EntityMapping(Movement, "stripe", _indexes),)


class StripeProvider:
    """See PaymentProvider. `store` holds the requests made to Stripe, so that each takes effect once."""

    def __init__(self, api: StripeApi, store: Store, clock: Clock) -> None:
        self._api = api
        self._store = store
        self._clock = clock

    async def charge(self, key: str, amount: Money, token: str) -> ChargeOutcome:
        movement = await self._begin(Movement(key, "charge", key, amount, self._clock.now()))
        if movement.outcome:
            return ChargeOutcome(movement.outcome)
        try:
            if movement.stripe_id:
                intent = await self._api.intent(movement.stripe_id)
            else:
                intent = await self._api.create_intent(key, amount)
                movement = await self._record(key, intent.id)
                if movement.outcome:  # voided meanwhile; the unconfirmed intent charges nothing
                    return ChargeOutcome(movement.outcome)
            outcome = intent.outcome or await self._confirm(intent, key, token)
        except ChargeDeclined as declined:
            outcome = declined.outcome
        except StripeRefused:
            raise provider_unavailable() from None
        return ChargeOutcome(await self._finish(key, outcome))

    async def void(self, key: str) -> ChargeOutcome:
        now = self._clock.now()

        def change(found: Sequence[Any]) -> Changes[Movement]:
            movement = found[0] or Movement(key, "charge", key, NO_MONEY, now)
            if movement.outcome or movement.stripe_id:
                return Changes(movement)
            movement.outcome = ChargeOutcome.VOIDED.value
            return Changes(movement, put=[movement])

        movement = await self._store.transact([Ref(Movement, key)], change)
        if movement.outcome:
            return ChargeOutcome(movement.outcome)
        intent = await self._api.cancel(movement.stripe_id)
        if intent.outcome is None:
            raise provider_unavailable()  # another attempt is charging this intent; retry later
        return ChargeOutcome(await self._finish(key, intent.outcome))

    async def refund(self, key: str, charge_key: str, amount: Money) -> RefundOutcome:
        movement, intent_id, known = await self._begin_refund(key, charge_key, amount)
        if movement.outcome:
            return RefundOutcome(movement.outcome)
        try:
            refund_id, outcome = await self._request_refund(movement, intent_id, known)
        except (StripeRefused, ChargeDeclined):
            refund_id, outcome = "", RefundOutcome.REFUSED
        if outcome is None:
            await self._record(key, refund_id)
            raise provider_unavailable()
        return RefundOutcome(await self._finish(key, outcome, refund_id))

    async def statement(self, charge_key: str) -> Statement:
        movement = await self._store.get(Movement, charge_key)
        if movement is None or not movement.stripe_id:
            return Statement()
        return Statement(
            await self._api.refunds_of(movement.stripe_id), await self._api.disputes_of(movement.stripe_id)
        )

    async def find_charge_key(self, provider_id: str) -> str:
        """See PaymentProvider. An intent is ours if Stripe has a key for it, and our store has it under that key."""
        try:
            key = await self._api.key_of(provider_id)
        except (StripeRefused, ChargeDeclined):
            return ""
        movement = await self._store.get(Movement, key) if key else None
        return key if movement is not None and movement.stripe_id == provider_id else ""

    async def changed_charges(self, since: datetime, until: datetime) -> Sequence[str]:
        keys = [await self.find_charge_key(intent_id) for intent_id in await self._api.changed_intents(since, until)]
        return [key for key in keys if key]

    async def ledger(self, limit: int, cursor: str | None) -> Page[LedgerEntry]:
        """See PaymentProvider. The ledger lists Stripe's final answers as the store recorded them."""
        page = await self._store.page(Movement, "all", "all", limit=limit, cursor=cursor)
        return Page([_entry(movement) for movement in page.items], page.next_cursor)

    async def close(self) -> None:
        await self._api.close()
        await self._store.close()

    async def _confirm(self, intent: Intent, key: str, token: str) -> ChargeOutcome:
        if not intent.open:
            raise provider_unavailable()  # another attempt is charging this intent; retry later
        try:
            confirmed = await self._api.confirm(intent.id, key, token)
        except StripeRefused:
            confirmed = await self._api.intent(intent.id)
            if confirmed.outcome is None and confirmed.open:
                # The intent was not confirmed or cancelled meanwhile, so the refusal is about this token. For example,
                # Stripe's refusal of a PaymentMethod that was used before has no code and no parameter. A retry would
                # be refused again, and the order's stock would stay reserved.
                return ChargeOutcome.PAYMENT_DECLINED
        if confirmed.outcome is None:
            raise provider_unavailable()
        return confirmed.outcome

    async def _request_refund(
        self, movement: Movement, intent_id: str, known: bool
    ) -> tuple[str, RefundOutcome | None]:
        if movement.stripe_id:
            return await self._api.refund(movement.stripe_id)
        found = await self._api.find_refund(movement.id, intent_id) if known else None
        return found or await self._api.create_refund(movement.id, intent_id, movement.amount)

    async def _begin(self, new: Movement) -> Movement:
        def change(found: Sequence[Any]) -> Changes[Movement]:
            return Changes(found[0]) if found[0] else Changes(new, put=[new])

        return await self._store.transact([Ref(Movement, new.id)], change)

    async def _begin_refund(self, key: str, charge_key: str, amount: Money) -> tuple[Movement, str, bool]:
        """Record a refund. Returns it, the id of the PaymentIntent to refund, and whether it was recorded before."""
        now = self._clock.now()

        def change(found: Sequence[Any]) -> Changes[tuple[Movement, str, bool]]:
            movement, charge = found
            intent_id = charge.stripe_id if charge else ""
            if movement is not None:
                return Changes((movement, intent_id, True))
            movement = Movement(key, "refund", charge_key, amount, now)
            charged = charge is not None and charge.outcome == ChargeOutcome.CAPTURED
            if not charged or charge.amount.currency != amount.currency:
                movement.outcome = RefundOutcome.REFUSED.value
            return Changes((movement, intent_id, False), put=[movement])

        return await self._store.transact([Ref(Movement, key), Ref(Movement, charge_key)], change)

    async def _record(self, key: str, stripe_id: str) -> Movement:
        return await self._update(key, stripe_id, "")

    async def _finish(self, key: str, outcome: ChargeOutcome | RefundOutcome, stripe_id: str = "") -> str:
        return (await self._update(key, stripe_id, outcome.value)).outcome

    async def _update(self, key: str, stripe_id: str, outcome: str) -> Movement:
        """Set `outcome`, and `stripe_id` if there is none yet. A final outcome stays. Returns the movement."""

        def change(found: Sequence[Any]) -> Changes[Movement]:
            movement: Movement = found[0]
            if movement.outcome:
                return Changes(movement)
            movement.stripe_id = movement.stripe_id or stripe_id
            movement.outcome = outcome
            return Changes(movement, put=[movement])

        return await self._store.transact([Ref(Movement, key)], change)


def _entry(movement: Movement) -> LedgerEntry:
    moved = movement.outcome in _MOVED
    amount = movement.amount if moved else Money(0, movement.amount.currency)
    outcome = "succeeded" if moved else movement.outcome.lower()
    return LedgerEntry(movement.id, movement.kind, movement.payment_id, amount, outcome, movement.at)
