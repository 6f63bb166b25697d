"""The port of payment providers, which move the money. The adapters are `simulated.py` and `stripe_provider.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar

from events.catalog import Money
from functions.runtime.errors import ServiceError, unavailable
from functions.runtime.store.port import Page
from observability.failpoints import failpoints

R = TypeVar("R")

NO_MONEY = Money(0, "XXX")
"""The amount of a void. XXX is ISO 4217's code for no currency."""


class ChargeOutcome(StrEnum):
    """The final outcome of a charge. The orders service shows refusals as reasons.

    AMOUNT_NOT_CHARGEABLE means that the provider does not accept the amount or the currency with any card.
    """

    CAPTURED = "CAPTURED"
    PAYMENT_DECLINED = "PAYMENT_DECLINED"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    AMOUNT_NOT_CHARGEABLE = "AMOUNT_NOT_CHARGEABLE"
    VOIDED = "VOIDED"


class RefundOutcome(StrEnum):
    """The final outcome of a refund."""

    SUCCEEDED = "SUCCEEDED"
    REFUSED = "REFUSED"


@dataclass
class LedgerEntry:
    """One entry of the provider's ledger. Its id is the idempotency key of the call that made the entry.

    `kind` is `charge`, `refund` or `dispute`. `outcome` is `succeeded` or the reason of the refusal; for a dispute it
    is `open`, `won` or `lost`. `amount` is the amount that moved, or zero after a refusal. `returned` is the part of a
    charge that was refunded or lost, in minor units. Until `locked_until` the charge is disputed and cannot be
    refunded. `moved_at` is set only on entries that the shop did not make. It is the time when `outcome` takes effect.
    Until then a dispute counts as open.
    """

    id: str
    kind: str
    payment_id: str
    amount: Money
    outcome: str
    at: datetime
    returned: int = 0
    locked_until: datetime | None = None
    moved_at: datetime | None = None
    version: int = 0


class RefundState(StrEnum):
    """The state of a refund at the provider."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class RefundRecord:
    """A refund at the provider. `key` is its idempotency key, or empty if the shop did not request the refund."""

    provider_id: str
    key: str
    amount: Money
    state: RefundState


@dataclass(frozen=True)
class DisputeRecord:
    """A dispute at the provider. `state` is OPEN, WON or LOST."""

    provider_id: str
    amount: Money
    reason: str
    state: str
    refundable: bool


@dataclass(frozen=True)
class Statement:
    """All refunds and disputes of one charge at the provider, including those that the shop did not make."""

    refunds: Sequence[RefundRecord] = ()
    disputes: Sequence[DisputeRecord] = ()


class PaymentProvider(Protocol):
    """A provider that moves money at most once per idempotency key. A repeated key gets the outcome of the first call.

    Every method may raise UNAVAILABLE (PAYMENT_PROVIDER_UNAVAILABLE). The money may have moved nevertheless; a repeated
    call returns whether it has.
    """

    async def charge(self, key: str, amount: Money, token: str) -> ChargeOutcome:
        """Authorise and capture `amount`, unless `void` came first. The token is never stored or logged."""

    async def void(self, key: str) -> ChargeOutcome:
        """Prevent any charge with `key`. Returns VOIDED, or the outcome of a charge that came first."""

    async def refund(self, key: str, charge_key: str, amount: Money) -> RefundOutcome:
        """Refund `amount` of the charge made with `charge_key`."""

    async def statement(self, charge_key: str) -> Statement:
        """Return all refunds and disputes of the charge with the key `charge_key`; none if there was no charge."""

    async def find_charge_key(self, provider_id: str) -> str:
        """Return the key of the charge that has this id at the provider, or "" if it is not one of ours."""

    async def changed_charges(self, since: datetime, until: datetime) -> Sequence[str]:
        """Return the keys of charges whose refunds or disputes were created or changed between the two times."""

    async def ledger(self, limit: int, cursor: str | None) -> Page[LedgerEntry]:
        """List the ledger, oldest first."""

    async def close(self) -> None:
        """Close files and connections."""


@dataclass(frozen=True)
class ProviderEvent:
    """An event that the provider sends to the webhook.

    `kind` is `charge`, `refund`, `dispute`, or empty for other events. `key` is our idempotency key of the object, or
    empty if the event has none. `provider_id` is the provider's id of the object. `charge_id` is the provider's id of
    the charge to which a refund or dispute belongs.
    """

    id: str
    type: str
    kind: str
    key: str
    provider_id: str
    charge_id: str
    reason: str


class Webhook(Protocol):
    """Verifies and parses the events that a provider sends."""

    async def parse(self, payload: bytes, signature: str) -> ProviderEvent:
        """Verify the signature and parse the event.

        Raises:
            InvalidArgument: SIGNATURE_INVALID (not the provider's, or too old), WEBHOOK_MALFORMED.
        """


def provider_unavailable() -> ServiceError:
    """Make the error that adapters raise for a timeout, or for a transient failure of the provider or the network."""
    return unavailable("PAYMENT_PROVIDER_UNAVAILABLE", "The payment provider does not answer. Try again later.")


class TimeLimitedProvider:
    """A wrapper of a provider whose calls fail with UNAVAILABLE after `seconds`."""

    def __init__(self, provider: PaymentProvider, seconds: float) -> None:
        self._provider = provider
        self._seconds = seconds

    async def charge(self, key: str, amount: Money, token: str) -> ChargeOutcome:
        with failpoints("provider.charge"):
            return await self._limited(self._provider.charge(key, amount, token))

    async def void(self, key: str) -> ChargeOutcome:
        with failpoints("provider.void"):
            return await self._limited(self._provider.void(key))

    async def refund(self, key: str, charge_key: str, amount: Money) -> RefundOutcome:
        with failpoints("provider.refund"):
            return await self._limited(self._provider.refund(key, charge_key, amount))

    async def statement(self, charge_key: str) -> Statement:
        return await self._limited(self._provider.statement(charge_key))

    async def find_charge_key(self, provider_id: str) -> str:
        return await self._limited(self._provider.find_charge_key(provider_id))

    async def changed_charges(self, since: datetime, until: datetime) -> Sequence[str]:
        return await self._limited(self._provider.changed_charges(since, until))

    async def ledger(self, limit: int, cursor: str | None) -> Page[LedgerEntry]:
        return await self._limited(self._provider.ledger(limit, cursor))

    async def close(self) -> None:
        await self._provider.close()

    async def _limited(self, call: Awaitable[R]) -> R:
        try:
            async with asyncio.timeout(self._seconds):
                return await call
        except TimeoutError:
            raise provider_unavailable() from None
