"""Stripe's API, as far as payments need it: through Stripe's own library, each call bounded, faults told apart.

The library is loaded at the first call, in a thread: a part that starts from zero and charges nothing does without.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from events.catalog import Money
from functions.payments.provider import ChargeOutcome, RefundOutcome, provider_unavailable
from functions.runtime.breaker import Breaker

if TYPE_CHECKING:
    import stripe

R = TypeVar("R")

log = logging.getLogger("shop.payments")

RETRIES = 2
"""Of one call, by the library: with jitter, and the same idempotency key."""
KEY = "shop_key"
"""The metadata field of Stripe's objects that holds our idempotency key."""
# Parameters whose values an order brought: what is wrong with them is no fault of ours.
_OF_THE_ORDER = frozenset({"payment_method", "confirmation_token", "amount", "currency"})
# ISO 4217 gives these no minor unit, Stripe takes them in hundredths.
_IN_HUNDREDTHS = frozenset({"ISK", "UGX"})
_REFUNDS = {
    "succeeded": RefundOutcome.SUCCEEDED,
    "failed": RefundOutcome.REFUSED,
    "canceled": RefundOutcome.REFUSED,
}


class Declined(Exception):
    """The card, or the token, was refused; `outcome` says how."""

    def __init__(self, outcome: ChargeOutcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


class Refused(Exception):
    """Stripe will not do this, in the present state or at all; the text is its code."""


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
        breaker: Breaker | None = None,
    ) -> None:
        self._api_key = api_key
        self._base = base
        self._seconds = seconds
        self._retries = retries
        self._connecting = asyncio.Lock()
        self._client: stripe.StripeClient | None = None
        self._http: stripe.AIOHTTPClient | None = None
        self._breaker = breaker or Breaker("stripe")

    async def create_intent(self, key: str, amount: Money) -> Intent:
        """An intent that nothing is charged for yet. Raises Declined for an amount that Stripe does not take."""
        params: stripe.params.PaymentIntentCreateParams = {
            "amount": _minor(amount),
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
        once = _once(f"{key}:confirm")
        return _intent(
            await self._call(lambda c: c.v1.payment_intents.confirm_async(intent_id, params, once))
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
            "amount": _minor(amount),
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

        self._http = stripe.AIOHTTPClient(timeout=self._seconds)
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
        except stripe.InvalidRequestError as error:
            log.warning("stripe_refused", extra={"code": error.code, "param": error.param})
            if error.param in _OF_THE_ORDER:
                raise Declined(ChargeOutcome.PAYMENT_DECLINED) from None
            raise Refused(error.code or "invalid_request") from None
        except (stripe.StripeError, aiohttp.ClientError, TimeoutError) as error:
            status, code = getattr(error, "http_status", None), getattr(error, "code", None)
            log.warning(
                "stripe_unavailable", extra={"error": type(error).__name__, "status": status, "code": code}
            )
            raise provider_unavailable() from None


def _once(key: str) -> stripe.RequestOptions:
    return {"idempotency_key": key}


def _minor(money: Money) -> int:
    return money.amount * 100 if money.currency in _IN_HUNDREDTHS else money.amount


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


def _refund(refund: stripe.Refund) -> tuple[str, RefundOutcome | None]:
    return refund.id, _REFUNDS.get(refund.status or "")
