"""The provider port: who moves the money. Adapters: `simulated.py` and `stripe_provider.py`."""

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
from observability.failpoints import failpoint

R = TypeVar("R")

NO_MONEY = Money(0, "XXX")
"""ISO 4217's code for no currency: a void comes without an amount."""


class ChargeOutcome(StrEnum):
    """The final answer to a charge. The refusals are the reasons that orders show.

    AMOUNT_NOT_CHARGEABLE is nobody's card: the provider takes no such amount or currency.
    """

    CAPTURED = "CAPTURED"
    PAYMENT_DECLINED = "PAYMENT_DECLINED"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    AMOUNT_NOT_CHARGEABLE = "AMOUNT_NOT_CHARGEABLE"
    VOIDED = "VOIDED"


class RefundOutcome(StrEnum):
    """The final answer to a refund."""

    SUCCEEDED = "SUCCEEDED"
    REFUSED = "REFUSED"


@dataclass
class LedgerEntry:
    """One movement on the provider's books; its id is the idempotency key it was made with.

    `kind` is `charge`, `refund` or `dispute`, `outcome` `succeeded` or why not, of a dispute `open`, `won` or `lost`;
    `amount` is what moved, zero for what was refused. `returned` is what went back of a charge, in minor units; until
    `locked_until` the charge is disputed and nothing can be refunded. `moved_at` is when what somebody did at the
    provider, and not the shop, takes its `outcome`: until then a dispute is open.
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
    """Where a refund stands at the provider."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class RefundRecord:
    """A refund of a charge, as the provider has it. `key` is ours of one that we asked for, else empty."""

    provider_id: str
    key: str
    amount: Money
    state: RefundState


@dataclass(frozen=True)
class DisputeRecord:
    """A dispute of a charge, as the provider has it. `state` is OPEN, WON or LOST."""

    provider_id: str
    amount: Money
    reason: str
    state: str
    refundable: bool


@dataclass(frozen=True)
class Statement:
    """What became of a charge at the provider, whoever asked for it."""

    refunds: Sequence[RefundRecord] = ()
    disputes: Sequence[DisputeRecord] = ()


class Provider(Protocol):
    """Moves money, at most once per idempotency key: the same key always gets the first call's answer.

    Every method may raise UNAVAILABLE (PAYMENT_PROVIDER_UNAVAILABLE). The money may have moved all the
    same; the same call again tells.
    """

    async def charge(self, key: str, amount: Money, token: str) -> ChargeOutcome:
        """Authorise and capture `amount`; VOIDED when `void` came first. The token is not kept, nor
        logged.
        """

    async def void(self, key: str) -> ChargeOutcome:
        """Make sure that no charge will happen with `key` any more; the outcome of the one that did, or
        VOIDED.
        """

    async def refund(self, key: str, charge_key: str, amount: Money) -> RefundOutcome:
        """Give back `amount` of the charge made with `charge_key`."""

    async def statement(self, charge_key: str) -> Statement:
        """Every refund and dispute of the charge made with `charge_key`; empty where there was no charge."""

    async def charge_of(self, provider_id: str) -> str:
        """The key of the charge that the provider calls `provider_id`; empty where it is none of ours."""

    async def changed(self, since: datetime, until: datetime) -> Sequence[str]:
        """The keys of the charges of which a refund or dispute was made or moved between the two times."""

    async def ledger(self, limit: int, cursor: str | None) -> Page[LedgerEntry]:
        """The books, oldest first; FAILED_PRECONDITION (LEDGER_UNAVAILABLE) where they are not kept here."""

    async def close(self) -> None:
        """Let go of files and connections."""


@dataclass(frozen=True)
class ProviderEvent:
    """What a provider says of its own accord.

    `kind` is `charge`, `refund`, `dispute`, or empty for what does not concern us; `key` the idempotency key of ours
    that it is about, empty where the provider does not say; `provider_id` its own name of the thing, `charge_id` of the
    charge that a refund or dispute is about.
    """

    id: str
    type: str
    kind: str
    key: str
    provider_id: str
    charge_id: str
    reason: str


class Webhook(Protocol):
    """Reads what a provider sends."""

    async def read(self, payload: bytes, signature: str) -> ProviderEvent:
        """Raises INVALID_ARGUMENT: SIGNATURE_INVALID for what is not the provider's or too old, WEBHOOK_MALFORMED."""


def provider_unavailable() -> ServiceError:
    """What every adapter raises for a passing fault: of its own, of the network, or of time."""
    return unavailable(
        "PAYMENT_PROVIDER_UNAVAILABLE", "The payment provider does not answer. Try again later."
    )


class Bounded:
    """A provider whose every call ends within `seconds`."""

    def __init__(self, provider: Provider, seconds: float) -> None:
        self._provider = provider
        self._seconds = seconds

    async def charge(self, key: str, amount: Money, token: str) -> ChargeOutcome:
        """See Provider."""
        failpoint("provider.charge.before")
        outcome = await self._bounded(self._provider.charge(key, amount, token))
        failpoint("provider.charge.after")
        return outcome

    async def void(self, key: str) -> ChargeOutcome:
        """See Provider."""
        failpoint("provider.void.before")
        outcome = await self._bounded(self._provider.void(key))
        failpoint("provider.void.after")
        return outcome

    async def refund(self, key: str, charge_key: str, amount: Money) -> RefundOutcome:
        """See Provider."""
        failpoint("provider.refund.before")
        outcome = await self._bounded(self._provider.refund(key, charge_key, amount))
        failpoint("provider.refund.after")
        return outcome

    async def statement(self, charge_key: str) -> Statement:
        """See Provider."""
        return await self._bounded(self._provider.statement(charge_key))

    async def charge_of(self, provider_id: str) -> str:
        """See Provider."""
        return await self._bounded(self._provider.charge_of(provider_id))

    async def changed(self, since: datetime, until: datetime) -> Sequence[str]:
        """See Provider."""
        return await self._bounded(self._provider.changed(since, until))

    async def ledger(self, limit: int, cursor: str | None) -> Page[LedgerEntry]:
        """See Provider."""
        return await self._bounded(self._provider.ledger(limit, cursor))

    async def close(self) -> None:
        """See Provider."""
        await self._provider.close()

    async def _bounded(self, call: Awaitable[R]) -> R:
        try:
            async with asyncio.timeout(self._seconds):
                return await call
        except TimeoutError:
            raise provider_unavailable() from None
