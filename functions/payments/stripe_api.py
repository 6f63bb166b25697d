"""Stripe's API, as far as payments need it: through Stripe's own library, each call bounded, faults told apart.

The library is loaded at the first call, in a thread: a part that starts from zero and charges nothing does without.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from events.catalog import Money
from functions.payments.metrics import PROVIDER_ERRORS
from functions.payments.provider import (
    ChargeOutcome,
    DisputeRecord,
    RefundOutcome,
    RefundRecord,
    RefundState,
    provider_unavailable,
)
from functions.runtime.circuit_breaker import CircuitBreaker
from functions.runtime.currencies import PROVIDERS
from observability.proxies import proxy_for

if TYPE_CHECKING:
    import stripe

R = TypeVar("R")
T = TypeVar("T", bound="stripe.StripeObject")

log = logging.getLogger("shop.payments")

RETRIES = 2
"""Of one call, by the library: with jitter, and the same idempotency key."""
KEY = "shop_key"
"""The metadata field of Stripe's objects that holds our idempotency key."""
LIMITS = PROVIDERS["stripe"]
# Parameters whose values the customer brought: what is wrong with them is a decline, whatever the code.
_OF_THE_CUSTOMER = frozenset({"payment_method", "confirmation_token"})
_OF_THE_AMOUNT = frozenset({"amount", "currency"})
_AMOUNT_CODES = frozenset({"amount_too_large", "amount_too_small", "invalid_charge_amount"})
# Codes of docs.stripe.com/error-codes that say that the account, the key or this program is at fault. Only an operator
# can mend that, so that the payment is tried again until the order's time is over.
_OF_THE_OPERATOR = frozenset(
    {
        "account_invalid",
        "account_closed",
        "api_key_expired",
        "livemode_mismatch",
        "not_allowed_on_standard_account",
        "parameter_missing",
        "parameter_unknown",
        "parameters_exclusive",
        "platform_account_required",
        "platform_api_key_expired",
        "secret_key_required",
        "testmode_charges_only",
        "tls_version_unsupported",
        "url_invalid",
    }
)
# Statuses below 500 that say nothing final: a timeout, a lock (409 lock_timeout), a dependency, a rate limit.
_PASSING = frozenset({408, 409, 424, 425, 429})
_REFUNDS = {
    "succeeded": RefundOutcome.SUCCEEDED,
    "failed": RefundOutcome.REFUSED,
    "canceled": RefundOutcome.REFUSED,
}


# "prevented": the network decided for the payer before it came to a dispute. A warning is an inquiry, which ends well.
_DISPUTES = {"won": "WON", "warning_closed": "WON", "lost": "LOST", "prevented": "LOST"}
MOVES = (
    "charge.refunded",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
)
"""Stripe's event types that tell of money which moves after the charge."""


class Declined(Exception):
    """The card, or the token, was refused; `outcome` says how."""

    def __init__(self, outcome: ChargeOutcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


class Refused(Exception):
    """Stripe gave a final answer below 500 that is no decline; the text is its code.

    It will not do this, in the present state of the object or at all.
    """


@dataclass(frozen=True)
class Intent:
    """A PaymentIntent: `outcome` is None until it is final; `open`: nobody has confirmed it."""

    id: str
    outcome: ChargeOutcome | None
    open: bool


class StripeApi:
    """`seconds` bounds each call with its retries. The key stays in here: neither shown nor logged."""

    def __init__(
        self,
        api_key: str,
        base: str,
        seconds: float,
        retries: int = RETRIES,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self._api_key = api_key
        self._base = base
        self._seconds = seconds
        self._retries = retries
        self._connecting = asyncio.Lock()
        self._client: stripe.StripeClient | None = None
        self._http: stripe.AIOHTTPClient | None = None
        self._breaker = breaker or CircuitBreaker("stripe")

    async def create_intent(self, key: str, amount: Money) -> Intent:
        """An intent that nothing is charged for yet. Raises Declined for an amount that Stripe does not take."""
        params: stripe.params.PaymentIntentCreateParams = {
            "amount": _units(amount),
            "currency": amount.currency.lower(),
            # Cards answer at once: an order waits for minutes, and a bank debit may take days.
            "allowed_payment_method_types": ["card"],
            "metadata": {KEY: key},
        }
        return _intent(await self._call(lambda c: c.v1.payment_intents.create_async(params, _once(key))))

    async def confirm(self, intent_id: str, key: str, token: str) -> Intent:
        """Charge it. Raises Declined; Refused when it was confirmed or cancelled meanwhile."""
        # Nobody is there to authenticate when the stock is reserved.
        params: stripe.params.PaymentIntentConfirmParams = {"error_on_requires_action": True}
        if token.startswith("ctoken_"):  # Stripe.js gives a ConfirmationToken or a PaymentMethod
            params["confirmation_token"] = token
        else:
            params["payment_method"] = token
        idempotency = _once(f"{key}:confirm")
        return _intent(
            await self._call(lambda c: c.v1.payment_intents.confirm_async(intent_id, params, idempotency))
        )

    async def intent(self, intent_id: str) -> Intent:
        """How it stands."""
        return _intent(await self._call(lambda c: c.v1.payment_intents.retrieve_async(intent_id)))

    async def cancel(self, intent_id: str) -> Intent:
        """Call it off, for good, unless it is too late: how it stands then."""
        try:
            return _intent(await self._call(lambda c: c.v1.payment_intents.cancel_async(intent_id)))
        except Refused:
            return await self.intent(intent_id)

    async def create_refund(
        self, key: str, intent_id: str, amount: Money
    ) -> tuple[str, RefundOutcome | None]:
        """The refund's id and outcome, None while it is under way. Raises Refused."""
        params: stripe.params.RefundCreateParams = {
            "payment_intent": intent_id,
            "amount": _units(amount),
            "metadata": {KEY: key},
        }
        return _refund(await self._call(lambda c: c.v1.refunds.create_async(params, _once(key))))

    async def refund(self, refund_id: str) -> tuple[str, RefundOutcome | None]:
        """As `create_refund`, of one that is known."""
        return _refund(await self._call(lambda c: c.v1.refunds.retrieve_async(refund_id)))

    async def find_refund(self, key: str, intent_id: str) -> tuple[str, RefundOutcome | None] | None:
        """As `create_refund`, of one that was made with `key`, if there is any.

        Stripe forgets idempotency keys after a day at the earliest; this finds what is older.
        """
        params: stripe.params.RefundListParams = {"payment_intent": intent_id, "limit": 100}
        listed = await self._call(lambda c: c.v1.refunds.list_async(params))
        made = (refund for refund in listed.data if getattr(refund.metadata, KEY, "") == key)
        return next(map(_refund, made), None)

    async def refunds_of(self, intent_id: str) -> list[RefundRecord]:
        """Every refund of an intent, whoever made it."""
        params: stripe.params.RefundListParams = {"payment_intent": intent_id, "limit": 100}
        listed = await self._call(lambda c: _all(c.v1.refunds.list_async(params)))
        return [_refund_record(refund) for refund in listed]

    async def disputes_of(self, intent_id: str) -> list[DisputeRecord]:
        """Every dispute of an intent."""
        params: stripe.params.DisputeListParams = {"payment_intent": intent_id, "limit": 100}
        listed = await self._call(lambda c: _all(c.v1.disputes.list_async(params)))
        return [_dispute_record(dispute) for dispute in listed]

    async def key_of(self, intent_id: str) -> str:
        """Our key of an intent; empty for one that somebody else made. Raises Refused for one that is not there."""
        intent = await self._call(lambda c: c.v1.payment_intents.retrieve_async(intent_id))
        return str(getattr(intent.metadata, KEY, "") or "")

    async def changed(self, since: datetime, until: datetime) -> list[str]:
        """The intents of which a refund or dispute moved, by Stripe's events, which it keeps for 30 days."""
        params: stripe.params.EventListParams = {
            "types": list(MOVES),
            "created": {"gte": int(since.timestamp()), "lte": int(until.timestamp())},
            "limit": 100,
        }
        listed = await self._call(lambda c: _all(c.v1.events.list_async(params)))
        found = (getattr(event.data.object, "payment_intent", None) for event in listed)
        return list(dict.fromkeys(intent for intent in found if isinstance(intent, str)))

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close_async()  # type: ignore[no-untyped-call] # not typed by its authors

    async def _call(self, work: Callable[[stripe.StripeClient], Awaitable[R]]) -> R:
        client = self._client or await self._connect()
        return await self._breaker.call(lambda: self._once(work(client)))

    async def _connect(self) -> stripe.StripeClient:
        async with self._connecting:
            if self._client is None:
                self._client = await asyncio.to_thread(self._make)
            return self._client

    def _make(self) -> stripe.StripeClient:
        import stripe  # only this adapter's cost: 0.2 s of CPU, 15 MB

        proxy = proxy_for(self._base)  # aiohttp does not ask the environment
        self._http = stripe.AIOHTTPClient(timeout=self._seconds, proxy=proxy)
        return stripe.StripeClient(
            self._api_key,
            http_client=self._http,
            base_addresses={"api": self._base},
            max_network_retries=self._retries,
        )

    async def _once(self, call: Awaitable[R]) -> R:
        import aiohttp  # there already: the client needed them
        import stripe

        try:
            async with asyncio.timeout(self._seconds):
                return await call
        except stripe.CardError as error:
            raise Declined(_verdict(error.error)) from None
        except (stripe.StripeError, aiohttp.ClientError, TimeoutError) as error:
            raise _translated(error) from None


def _once(key: str) -> stripe.RequestOptions:
    return {"idempotency_key": key}


def _units(amount: Money) -> int:
    """The amount as Stripe counts it. Raises Declined for one that Stripe cannot express."""
    try:
        return LIMITS.to_provider(amount)
    except ValueError as error:
        log.error("amount_not_chargeable", extra={"problem": str(error)})
        raise Declined(ChargeOutcome.AMOUNT_NOT_CHARGEABLE) from None


def _translated(error: Exception) -> Exception:
    """What an error of the library, the network or the clock means here.

    Returns Declined where the customer's card or token, or the amount, is at fault; Refused for any other final answer;
    else UNAVAILABLE: for what passes, and for what only an operator can mend, which the alert on
    `shop_payment_provider_errors_total{kind="configuration"}` tells of.
    """
    import stripe  # there already: an error of its own is at hand

    status, code = getattr(error, "http_status", None), getattr(error, "code", None)
    param = getattr(error, "param", None)
    about = {"error": type(error).__name__, "status": status, "code": code, "param": param}
    ours = isinstance(error, (stripe.AuthenticationError, stripe.PermissionError, stripe.IdempotencyError))
    final = status is not None and 400 <= status < 500 and status not in _PASSING
    if final and not ours and not isinstance(error, stripe.RateLimitError):
        if param in _OF_THE_CUSTOMER:
            log.warning("stripe_declined", extra=about)
            return Declined(ChargeOutcome.PAYMENT_DECLINED)
        if param in _OF_THE_AMOUNT or code in _AMOUNT_CODES:
            log.error("stripe_refused_amount", extra=about)
            return Declined(ChargeOutcome.AMOUNT_NOT_CHARGEABLE)
        if code not in _OF_THE_OPERATOR:
            log.warning("stripe_refused", extra=about)
            return Refused(code or "invalid_request")
        ours = True
    if ours:
        log.error("stripe_misconfigured", extra=about)
        PROVIDER_ERRORS.labels("configuration").inc()
    else:
        log.warning("stripe_unavailable", extra=about)
        PROVIDER_ERRORS.labels("rate_limited" if status == 429 else "unavailable").inc()
    return provider_unavailable()


def _verdict(error: object) -> ChargeOutcome:
    if getattr(error, "decline_code", "") == "insufficient_funds":  # absent where nobody declined
        return ChargeOutcome.INSUFFICIENT_FUNDS
    return ChargeOutcome.PAYMENT_DECLINED


def _intent(intent: stripe.PaymentIntent) -> Intent:
    outcome = None
    error = intent.last_payment_error
    if intent.status == "succeeded":
        outcome = ChargeOutcome.CAPTURED
    elif intent.status == "canceled":
        outcome = ChargeOutcome.VOIDED
    elif intent.status == "requires_payment_method" and error:
        outcome = _verdict(error)
    return Intent(intent.id, outcome, intent.status in ("requires_payment_method", "requires_confirmation"))


async def _all(listing: Awaitable[stripe.ListObject[T]]) -> list[T]:
    """All pages of a list."""
    return [thing async for thing in (await listing).auto_paging_iter()]


def _refund_record(refund: stripe.Refund) -> RefundRecord:
    key = str(getattr(refund.metadata, KEY, "") or "")
    amount = LIMITS.from_provider(refund.amount, refund.currency.upper())
    outcome = _REFUNDS.get(refund.status or "")
    state = RefundState.PENDING
    if outcome is not None:
        state = RefundState.SUCCEEDED if outcome is RefundOutcome.SUCCEEDED else RefundState.FAILED
    return RefundRecord(refund.id, key, amount, state)


def _dispute_record(dispute: stripe.Dispute) -> DisputeRecord:
    amount = LIMITS.from_provider(dispute.amount, dispute.currency.upper())
    state = _DISPUTES.get(dispute.status, "OPEN")
    return DisputeRecord(dispute.id, amount, dispute.reason, state, dispute.is_charge_refundable)


def _refund(refund: stripe.Refund) -> tuple[str, RefundOutcome | None]:
    return refund.id, _REFUNDS.get(refund.status or "")
