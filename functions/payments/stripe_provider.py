"""Stripe behind the provider port.

A charge is a PaymentIntent that is made first, moving nothing, and whose id is committed here before it is confirmed:
from then on Stripe's own states decide between a charge and a void, and before that our record does. So whatever is
lost, the same key finds the same intent again, and an intent is charged once or never.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from events.catalog import Money
from functions.payments.provider import (
    NO_MONEY,
    ChargeOutcome,
    LedgerEntry,
    RefundOutcome,
    Statement,
    provider_unavailable,
)
from functions.payments.store import stamp
from functions.payments.stripe_api import Declined, Intent, Refused, StripeApi
from functions.runtime.clock import Clock
from functions.runtime.store.port import Changes, EntityMapping, IndexKey, Page, Ref, Store

_MOVED = (ChargeOutcome.CAPTURED, RefundOutcome.SUCCEEDED)


@dataclass
class Movement:
    """What was asked of Stripe with one idempotency key (the id), and its answer.

    `stripe_id`: the PaymentIntent or the Refund, once known. `outcome`: a ChargeOutcome or RefundOutcome, empty until
    the answer is final; it never changes then.
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
        yield IndexKey("all", "all", stamp(movement.at))


MAPPINGS = (EntityMapping(Movement, "stripe", _indexes),)


class StripeProvider:
    """See Provider; `store` holds what Stripe was asked, so that it is asked once."""

    def __init__(self, api: StripeApi, store: Store, clock: Clock) -> None:
        self._api = api
        self._store = store
        self._clock = clock

    async def charge(self, key: str, amount: Money, token: str) -> ChargeOutcome:
        """See Provider."""
        movement = await self._begin(Movement(key, "charge", key, amount, self._clock.now()))
        if movement.outcome:
            return ChargeOutcome(movement.outcome)
        try:
            if movement.stripe_id:
                intent = await self._api.intent(movement.stripe_id)
            else:
                intent = await self._api.create_intent(key, amount)
                movement = await self._know(key, intent.id)
                if (
                    movement.outcome
                ):  # voided meanwhile; the intent moves nothing as long as nobody confirms it
                    return ChargeOutcome(movement.outcome)
            outcome = intent.outcome or await self._confirm(intent, key, token)
        except Declined as declined:
            outcome = declined.outcome
        except Refused:
            raise provider_unavailable() from None
        return ChargeOutcome(await self._conclude(key, outcome))

    async def void(self, key: str) -> ChargeOutcome:
        """See Provider."""
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
            raise provider_unavailable()  # it is being charged this moment
        return ChargeOutcome(await self._conclude(key, intent.outcome))

    async def refund(self, key: str, charge_key: str, amount: Money) -> RefundOutcome:
        """See Provider."""
        movement, intent_id, known = await self._begin_refund(key, charge_key, amount)
        if movement.outcome:
            return RefundOutcome(movement.outcome)
        try:
            refund_id, outcome = await self._give_back(movement, intent_id, known)
        except (Refused, Declined):
            refund_id, outcome = "", RefundOutcome.REFUSED
        if outcome is None:
            await self._know(key, refund_id)
            raise provider_unavailable()
        return RefundOutcome(await self._conclude(key, outcome, refund_id))

    async def statement(self, charge_key: str) -> Statement:
        """See Provider."""
        movement = await self._store.get(Movement, charge_key)
        if movement is None or not movement.stripe_id:
            return Statement()
        return Statement(
            await self._api.refunds_of(movement.stripe_id), await self._api.disputes_of(movement.stripe_id)
        )

    async def charge_of(self, provider_id: str) -> str:
        """See Provider. Stripe keeps our key with the intent; ours is only the one that we know under this key."""
        try:
            key = await self._api.key_of(provider_id)
        except (Refused, Declined):
            return ""
        movement = await self._store.get(Movement, key) if key else None
        return key if movement is not None and movement.stripe_id == provider_id else ""

    async def changed(self, since: datetime, until: datetime) -> Sequence[str]:
        """See Provider."""
        keys = [await self.charge_of(intent_id) for intent_id in await self._api.changed(since, until)]
        return [key for key in keys if key]

    async def ledger(self, limit: int, cursor: str | None) -> Page[LedgerEntry]:
        """See Provider: what Stripe has answered for good, as it is recorded here."""
        page = await self._store.page(Movement, "all", "all", limit=limit, cursor=cursor)
        return Page([_entry(movement) for movement in page.items], page.next_cursor)

    async def close(self) -> None:
        """See Provider."""
        await self._api.close()
        await self._store.close()

    async def _confirm(self, intent: Intent, key: str, token: str) -> ChargeOutcome:
        if not intent.open:
            raise provider_unavailable()  # it is being charged this moment
        try:
            confirmed = await self._api.confirm(intent.id, key, token)
        except Refused:
            confirmed = await self._api.intent(intent.id)
            if confirmed.outcome is None and confirmed.open:
                # Nobody else has confirmed or cancelled it, so the refusal is about this token: Stripe refuses a
                # PaymentMethod that was used before with neither a code nor a parameter. The same call would be
                # refused again, and the order's stock would wait for it.
                return ChargeOutcome.PAYMENT_DECLINED
        if confirmed.outcome is None:
            raise provider_unavailable()
        return confirmed.outcome

    async def _give_back(
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
        """The movement, the PaymentIntent that it takes from, and whether it was begun before."""
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

    async def _know(self, key: str, stripe_id: str) -> Movement:
        return await self._note(key, stripe_id, "")

    async def _conclude(self, key: str, outcome: ChargeOutcome | RefundOutcome, stripe_id: str = "") -> str:
        return (await self._note(key, stripe_id, outcome.value)).outcome

    async def _note(self, key: str, stripe_id: str, outcome: str) -> Movement:
        """Keep what is new; what is known stays as it is."""

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
