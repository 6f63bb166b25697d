"""The parts of Stripe's API that payments needs, called through Stripe's own library.

Every call has a time limit, and every error is classified. The library is imported in a thread at the first call, so
that it does not slow the start of a process that never charges.
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
from functions.payments.providers.port import (
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
"""The number of times that the library retries a call, with jitter and the same idempotency key."""
KEY = "shop_key"
"""The metadata field of Stripe's objects that holds our idempotency key."""
LIMITS = PROVIDERS["stripe"]
# The customer supplies the values of these parameters, so an error in one of them is a decline, whatever its code.
_CUSTOMER_PARAMS = frozenset({"payment_method", "confirmation_token"})
_AMOUNT_PARAMS = frozenset({"amount", "currency"})
_AMOUNT_CODES = frozenset({"amount_too_large", "amount_too_small", "invalid_charge_amount"})
# Codes of docs.stripe.com/error-codes for errors in the account, the key or this program. Only an operator can fix
# them, so the payment is retried until the order times out.
_CONFIGURATION_CODES = frozenset(
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
# Statuses below 500 after which a retry may succeed: timeout, lock (409 lock_timeout), failed dependency, rate limit.
_TRANSIENT_STATUSES = frozenset({408, 409, 424, 425, 429})
_REFUNDS = {"succeeded": RefundOutcome.SUCCEEDED, "failed": RefundOutcome.REFUSED, "canceled": RefundOutcome.REFUSED}
# "prevented" means that the card network refunded the payer before a dispute began. "warning_closed" means that an
# inquiry ended without a dispute.
_DISPUTES = {"won": "WON", "warning_closed": "WON", "lost": "LOST", "prevented": "LOST"}
CHANGE_EVENTS = (
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
"""Stripe's event types for changes of refunds and disputes."""


class ChargeDeclined(Exception):
    """Stripe declined the card, the token or the amount. `outcome` says which."""

    def __init__(self, outcome: ChargeOutcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


class StripeRefused(Exception):
    """Stripe rejected a call with a final error that is not a decline. The text is Stripe's error code.

    The request is invalid, or the object's current state does not allow it. A retry does not help.
    """


@dataclass(frozen=True)
class Intent:
    """A PaymentIntent. `outcome` is None until it is final. `open` means that the intent is not confirmed yet."""

    id: str
    outcome: ChargeOutcome | None
    open: bool


class StripeApi:
    """Stripe's API. `seconds` limits each call including its retries. The API key is never shown or logged."""

    def __init__(
        self, api_key: str, base: str, seconds: float, retries: int = RETRIES, breaker: CircuitBreaker | None = None
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
        """Create an intent, which charges nothing yet. Raises ChargeDeclined if Stripe does not accept the amount."""
        params: stripe.params.PaymentIntentCreateParams = {
            "amount": _units(amount),
            "currency": amount.currency.lower(),
            # Only cards are allowed, because an order waits for minutes and a bank debit may take days.
            "allowed_payment_method_types": ["card"],
            "metadata": {KEY: key},
        }
        return _intent(await self._call(lambda c: c.v1.payment_intents.create_async(params, _with_key(key))))

    async def confirm(self, intent_id: str, key: str, token: str) -> Intent:
        """Charge an intent. Raises ChargeDeclined, or StripeRefused if it was confirmed or cancelled meanwhile."""
        # An order is charged after its stock is reserved, when the customer may no longer be present to authenticate.
        params: stripe.params.PaymentIntentConfirmParams = {"error_on_requires_action": True}
        if token.startswith("ctoken_"):  # Stripe.js creates a ConfirmationToken or a PaymentMethod
            params["confirmation_token"] = token
        else:
            params["payment_method"] = token
        idempotency = _with_key(f"{key}:confirm")
        return _intent(await self._call(lambda c: c.v1.payment_intents.confirm_async(intent_id, params, idempotency)))

    async def intent(self, intent_id: str) -> Intent:
        """Return an intent."""
        return _intent(await self._call(lambda c: c.v1.payment_intents.retrieve_async(intent_id)))

    async def cancel(self, intent_id: str) -> Intent:
        """Cancel an intent. Returns it unchanged if it can no longer be cancelled."""
        try:
            return _intent(await self._call(lambda c: c.v1.payment_intents.cancel_async(intent_id)))
        except StripeRefused:
            return await self.intent(intent_id)

    async def create_refund(self, key: str, intent_id: str, amount: Money) -> tuple[str, RefundOutcome | None]:
        """Create a refund. Returns its id and its outcome, which is None while it is pending. Raises StripeRefused."""
        params: stripe.params.RefundCreateParams = {
            "payment_intent": intent_id,
            "amount": _units(amount),
            "metadata": {KEY: key},
        }
        return _refund(await self._call(lambda c: c.v1.refunds.create_async(params, _with_key(key))))

    async def refund(self, refund_id: str) -> tuple[str, RefundOutcome | None]:
        """Return the id and outcome of a refund, as `create_refund` does."""
        return _refund(await self._call(lambda c: c.v1.refunds.retrieve_async(refund_id)))

    async def find_refund(self, key: str, intent_id: str) -> tuple[str, RefundOutcome | None] | None:
        """Return the id and outcome of the refund that was made with `key`, or None.

        Stripe may drop idempotency keys after a day; this method also finds older refunds.
        """
        params: stripe.params.RefundListParams = {"payment_intent": intent_id, "limit": 100}
        listed = await self._call(lambda c: c.v1.refunds.list_async(params))
        made = (refund for refund in listed.data if getattr(refund.metadata, KEY, "") == key)
        return next(map(_refund, made), None)

    async def refunds_of(self, intent_id: str) -> list[RefundRecord]:
        """Return all refunds of an intent, including those that the shop did not request."""
        params: stripe.params.RefundListParams = {"payment_intent": intent_id, "limit": 100}
        listed = await self._call(lambda c: _all(c.v1.refunds.list_async(params)))
        return [_refund_record(refund) for refund in listed]

    async def disputes_of(self, intent_id: str) -> list[DisputeRecord]:
        """Return every dispute of an intent."""
        params: stripe.params.DisputeListParams = {"payment_intent": intent_id, "limit": 100}
        listed = await self._call(lambda c: _all(c.v1.disputes.list_async(params)))
        return [_dispute_record(dispute) for dispute in listed]

    async def key_of(self, intent_id: str) -> str:
        """Return our key of an intent, or "" if it has none. Raises StripeRefused if there is no such intent."""
        intent = await self._call(lambda c: c.v1.payment_intents.retrieve_async(intent_id))
        return str(getattr(intent.metadata, KEY, "") or "")

    async def changed_intents(self, since: datetime, until: datetime) -> list[str]:
        """Return the ids of intents whose refunds or disputes changed between the two times.

        They are found in Stripe's events, which Stripe keeps for 30 days.
        """
        params: stripe.params.EventListParams = {
            "types": list(CHANGE_EVENTS),
            "created": {"gte": int(since.timestamp()), "lte": int(until.timestamp())},
            "limit": 100,
        }
        listed = await self._call(lambda c: _all(c.v1.events.list_async(params)))
        found = (getattr(event.data.object, "payment_intent", None) for event in listed)
        return list(dict.fromkeys(intent for intent in found if isinstance(intent, str)))

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close_async()  # type: ignore[no-untyped-call] # the library does not type it

    async def _call(self, work: Callable[[stripe.StripeClient], Awaitable[R]]) -> R:
        client = self._client or await self._connect()
        return await self._breaker.call(lambda: self._classify(work(client)))

    async def _connect(self) -> stripe.StripeClient:
        async with self._connecting:
            if self._client is None:
                self._client = await asyncio.to_thread(self._create_client)
            return self._client

    def _create_client(self) -> stripe.StripeClient:
        import stripe  # the import takes 0.2 s of CPU and 15 MB

        proxy = proxy_for(self._base)  # because aiohttp does not read the environment here
        self._http = stripe.AIOHTTPClient(timeout=self._seconds, proxy=proxy)
        return stripe.StripeClient(
            self._api_key, http_client=self._http, base_addresses={"api": self._base}, max_network_retries=self._retries
        )

    async def _classify(self, call: Awaitable[R]) -> R:
        # The client has already imported both modules.
        import aiohttp
        import stripe

        try:
            async with asyncio.timeout(self._seconds):
                return await call
        except stripe.CardError as error:
            raise ChargeDeclined(_decline_outcome(error.error)) from None
        except (stripe.StripeError, aiohttp.ClientError, TimeoutError) as error:
            raise _translate(error) from None


def _with_key(key: str) -> stripe.RequestOptions:
    return {"idempotency_key": key}


def _units(amount: Money) -> int:
    """Return the amount in Stripe's units. Raises ChargeDeclined for an amount that Stripe does not accept."""
    try:
        return LIMITS.to_provider(amount)
    except ValueError as error:
        log.error("amount_not_chargeable", extra={"problem": str(error)})
        raise ChargeDeclined(ChargeOutcome.AMOUNT_NOT_CHARGEABLE) from None


def _translate(error: Exception) -> Exception:
    """Translate an error of the library or the network, or a timeout.

    Returns ChargeDeclined if the customer's card or token, or the amount, is the cause, and StripeRefused for any other
    final error. All other errors become UNAVAILABLE: transient errors, and errors that only an operator can fix. The
    latter raise the alert on `shop_payment_provider_errors_total{kind="configuration"}`.
    """
    import stripe  # the caller has imported it already

    status, code = getattr(error, "http_status", None), getattr(error, "code", None)
    param = getattr(error, "param", None)
    about = {"error": type(error).__name__, "status": status, "code": code, "param": param}
    is_configuration = isinstance(error, (stripe.AuthenticationError, stripe.PermissionError, stripe.IdempotencyError))
    final = status is not None and 400 <= status < 500 and status not in _TRANSIENT_STATUSES
    if final and not is_configuration and not isinstance(error, stripe.RateLimitError):
        if param in _CUSTOMER_PARAMS:
            log.warning("stripe_declined", extra=about)
            return ChargeDeclined(ChargeOutcome.PAYMENT_DECLINED)
        if param in _AMOUNT_PARAMS or code in _AMOUNT_CODES:
            log.error("stripe_refused_amount", extra=about)
            return ChargeDeclined(ChargeOutcome.AMOUNT_NOT_CHARGEABLE)
        if code not in _CONFIGURATION_CODES:
            log.warning("stripe_refused", extra=about)
            return StripeRefused(code or "invalid_request")
        is_configuration = True
    if is_configuration:
        log.error("stripe_misconfigured", extra=about)
        PROVIDER_ERRORS.labels("configuration").inc()
    else:
        log.warning("stripe_unavailable", extra=about)
        PROVIDER_ERRORS.labels("rate_limited" if status == 429 else "unavailable").inc()
    return provider_unavailable()


def _decline_outcome(error: object) -> ChargeOutcome:
    if getattr(error, "decline_code", "") == "insufficient_funds":  # set only if an issuer declined
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
        outcome = _decline_outcome(error)
    return Intent(intent.id, outcome, intent.status in ("requires_payment_method", "requires_confirmation"))


async def _all(listing: Awaitable[stripe.ListObject[T]]) -> list[T]:
    """Return the items of all pages of a list."""
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
