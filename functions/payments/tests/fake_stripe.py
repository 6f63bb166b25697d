"""A fake of the parts of Stripe's API that payments uses, with idempotency keys, declines, and faults on request.

It takes the simulated provider's tokens, so that one contract suite runs over both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from events.catalog import Money
from functions.payments.providers import stripe_provider
from functions.payments.providers.stripe_api import StripeApi
from functions.payments.providers.stripe_provider import StripeProvider
from functions.runtime.clock import Clock, ManualClock
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import Store

API_KEY = "sk_test_opensesame"
_DECLINES = {"tok_declined": "generic_decline", "tok_insufficient_funds": "insufficient_funds"}
REUSED = "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment."
"""Stripe's message for this error, which has neither a code nor a parameter."""
MINIMUM = {"eur": 50, "usd": 50, "gbp": 30, "jpy": 50, "huf": 17500}
STEP = {**dict.fromkeys(("bhd", "jod", "kwd", "omr", "tnd"), 10), "isk": 100, "ugx": 100}
_OPEN = ("requires_payment_method", "requires_confirmation")

Handler = Callable[[web.Request], Awaitable[web.Response]]
Form = dict[str, str]


class FakeStripe:
    """Stripe's state. Each request consumes one of `faults`:

    `before` loses the request; `after` loses the answer; `late` sends the answer after the client's timeout; a number
    answers with this status and does nothing; `status/type/code/param` answers with this error and does nothing.
    """

    def __init__(self) -> None:
        self.intents: dict[str, dict[str, Any]] = {}
        self.refunds: dict[str, dict[str, Any]] = {}
        self.disputes: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.now = datetime.now(UTC)
        self.requests: list[tuple[str, str, Form]] = []
        self.keys: list[str] = []
        self.faults: list[str] = []
        self.refund_status = "succeeded"
        self.confirmed_status = "succeeded"
        self.page = 100
        self.base = ""
        self.late = asyncio.Event()
        self._answers: dict[str, tuple[object, web.Response | None]] = {}

    @property
    def net(self) -> int:
        """The sum charged minus all that was refunded or lost."""
        taken = sum(i["amount"] for i in self.intents.values() if i["status"] == "succeeded")
        back = sum(r["amount"] for r in self.refunds.values() if r["status"] == "succeeded")
        lost = sum(d["amount"] for d in self.disputes.values() if d["status"] == "lost")
        return int(taken - back - lost)

    def count(self, ending: str) -> int:
        """Return the number of requests whose path ends so."""
        return sum(path.endswith(ending) for _, path, _ in self.requests)

    def provider(self, store: Store | None = None, clock: Clock | None = None, **api: Any) -> StripeProvider:
        """Return the adapter to this server, without the library's retries, whose pauses are long."""
        clock = clock or ManualClock()
        options = {"seconds": 5.0, "retries": 0, **api}
        store = store or MemoryStore(stripe_provider.MAPPINGS, clock)
        return StripeProvider(StripeApi(API_KEY, self.base, **options), store, clock)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[FakeStripe]:
        """Listen on a free port, with the address in `base`."""
        app = web.Application(middlewares=[self._check_and_fault()])
        app.add_routes(
            [
                web.post("/v1/payment_intents", self._create),
                web.get("/v1/payment_intents/{id}", self._read),
                web.post("/v1/payment_intents/{id}/confirm", self._confirm),
                web.post("/v1/payment_intents/{id}/cancel", self._cancel),
                web.post("/v1/refunds", self._refund),
                web.get("/v1/refunds/{id}", self._read_refund),
                web.get("/v1/refunds", self._list_refunds),
                web.get("/v1/disputes", self._list_disputes),
                web.get("/v1/events", self._list_events),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.base = "http://{}:{}".format(*runner.addresses[0])
        try:
            yield self
        finally:
            self.late.set()
            await runner.cleanup()

    def _check_and_fault(self) -> Any:
        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.headers.get("authorization") != f"Bearer {API_KEY}":
                return error(401, "invalid_request_error", "api_key_invalid")
            form = {key: str(value) for key, value in (await request.post()).items()}
            self.requests.append((request.method, request.path, form))
            fault = self.faults.pop(0) if self.faults else ""
            if "/" in fault:
                status, kind, code, param = fault.split("/")
                return error(int(status), kind, code, param)
            if fault.isdigit():
                return error(int(fault), "api_error" if fault >= "500" else "rate_limit_error", "")
            answer = await self._once(request, form, handler) if fault != "before" else web.Response()
            if fault in ("before", "after"):
                assert request.transport is not None
                request.transport.close()
            if fault == "late":
                await self.late.wait()
            return answer

        return middleware

    async def _once(self, request: web.Request, form: Form, handler: Handler) -> web.Response:
        key = request.headers.get("idempotency-key", "")
        if request.method != "POST":
            return await handler(request)
        assert key, "every POST carries a key"
        self.keys.append(key)
        asked = (request.path, form)
        known, answer = self._answers.get(key, (asked, None))
        if known != asked:
            return error(400, "idempotency_error", "")
        if answer is None:
            answer = await handler(request)
            self._answers[key] = (asked, answer)
        return web.Response(body=answer.body, status=answer.status, content_type="application/json", charset="utf-8")

    async def _create(self, request: web.Request) -> web.Response:
        form = await request.post()
        currency, amount = str(form["currency"]), int(str(form["amount"]))
        if amount < MINIMUM.get(currency, 1):
            return error(400, "invalid_request_error", "amount_too_small", "amount")
        if amount % STEP.get(currency, 1):
            return error(400, "invalid_request_error", "invalid_charge_amount", "amount")
        intent = {
            "id": f"pi_{len(self.intents) + 1}",
            "object": "payment_intent",
            "amount": int(str(form["amount"])),
            "currency": form["currency"],
            "status": "requires_payment_method",
            "metadata": {"shop_key": form["metadata[shop_key]"]},
            "last_payment_error": None,
        }
        self.intents[str(intent["id"])] = intent
        return web.json_response(intent)

    async def _read(self, request: web.Request) -> web.Response:
        return web.json_response(self.intents[request.match_info["id"]])

    async def _confirm(self, request: web.Request) -> web.Response:
        intent, form = self.intents[request.match_info["id"]], await request.post()
        if intent["status"] not in _OPEN:
            return error(400, "invalid_request_error", "payment_intent_unexpected_state")
        token = form.get("payment_method")
        if token in _DECLINES:
            refusal = {"type": "card_error", "code": "card_declined", "decline_code": _DECLINES[token]}
            intent["last_payment_error"] = refusal
            return web.json_response({"error": {**refusal, "payment_intent": intent}}, status=402)
        if token == "pm_used_before":
            return web.json_response({"error": {"type": "invalid_request_error", "message": REUSED}}, status=400)
        if token not in ("tok_ok", "pm_card_visa"):
            return error(400, "invalid_request_error", "resource_missing", "payment_method")
        intent["status"] = self.confirmed_status
        return web.json_response(intent)

    async def _cancel(self, request: web.Request) -> web.Response:
        intent = self.intents[request.match_info["id"]]
        if intent["status"] not in _OPEN:
            return error(400, "invalid_request_error", "payment_intent_unexpected_state")
        intent["status"] = "canceled"
        return web.json_response(intent)

    # Actions in the dashboard and by banks

    def refund_in_the_dashboard(self, intent_id: str, amount: int, status: str = "succeeded") -> dict[str, Any]:
        """Create a refund without our metadata. Stripe refuses none here."""
        refund = self._new_refund(self.intents[intent_id], amount, status, {})
        self.add_event("refund.created", refund)
        return refund

    def dispute(self, intent_id: str, amount: int, status: str = "needs_response") -> dict[str, Any]:
        """Open a dispute; `warning_needs_response` is an inquiry only."""
        dispute = {
            "id": f"dp_{len(self.disputes) + 1}",
            "object": "dispute",
            "amount": amount,
            "currency": self.intents[intent_id]["currency"],
            "payment_intent": intent_id,
            "reason": "fraudulent",
            "status": status,
            "is_charge_refundable": status.startswith("warning"),
            "metadata": {},
        }
        self.disputes[str(dispute["id"])] = dispute
        self.add_event("charge.dispute.created", dispute)
        return dispute

    def decide(self, dispute_id: str, status: str) -> dict[str, Any]:
        """Close a dispute."""
        dispute = self.disputes[dispute_id]
        dispute["status"] = status
        self.add_event("charge.dispute.closed", dispute)
        return dispute

    def add_event(self, kind: str, thing: dict[str, Any]) -> None:
        """Add an event, newest first."""
        event = {
            "id": f"evt_{len(self.events) + 1}",
            "object": "event",
            "type": kind,
            "data": {"object": thing},
        }
        self.events.insert(0, {**event, "created": int(self.now.timestamp())})

    def _new_refund(self, intent: dict[str, Any], amount: int, status: str, metadata: dict[str, str]) -> dict[str, Any]:
        refund = {
            "id": f"re_{len(self.refunds) + 1}",
            "object": "refund",
            "amount": amount,
            "currency": intent["currency"],
            "payment_intent": intent["id"],
            "status": status,
            "metadata": metadata,
        }
        self.refunds[str(refund["id"])] = refund
        return refund

    def _locked(self, intent_id: str) -> bool:
        open_ones = ("needs_response", "under_review", "lost")
        return any(d["payment_intent"] == intent_id and d["status"] in open_ones for d in self.disputes.values())

    async def _list_disputes(self, request: web.Request) -> web.Response:
        wanted = request.query["payment_intent"]
        found = [d for d in self.disputes.values() if d["payment_intent"] == wanted]
        return web.json_response({"object": "list", "data": found, "has_more": False, "url": "/v1/disputes"})

    async def _list_events(self, request: web.Request) -> web.Response:
        query = request.query
        types = {value for name, value in query.items() if name.startswith("types[")}
        since, until = int(query["created[gte]"]), int(query["created[lte]"])
        found = [e for e in self.events if e["type"] in types and since <= e["created"] <= until]
        after = query.get("starting_after")
        ids = [event["id"] for event in found]
        rest = found[ids.index(after) + 1 :] if after in ids else found
        page = rest[: min(int(query["limit"]), self.page)]
        more = len(rest) > len(page)
        return web.json_response({"object": "list", "data": page, "has_more": more, "url": "/v1/events"})

    async def _refund(self, request: web.Request) -> web.Response:
        form = await request.post()
        intent, amount = self.intents[str(form["payment_intent"])], int(str(form["amount"]))
        before = sum(
            r["amount"]
            for r in self.refunds.values()
            if r["payment_intent"] == intent["id"] and r["status"] != "failed"
        )
        if before + amount > intent["amount"]:
            return error(400, "invalid_request_error", "", "amount")
        if self._locked(intent["id"]):
            return error(400, "invalid_request_error", "charge_disputed")
        metadata = {"shop_key": str(form["metadata[shop_key]"])}
        refund = self._new_refund(intent, amount, self.refund_status, metadata)
        return web.json_response(refund)

    async def _read_refund(self, request: web.Request) -> web.Response:
        return web.json_response(self.refunds[request.match_info["id"]])

    async def _list_refunds(self, request: web.Request) -> web.Response:
        found = [r for r in self.refunds.values() if r["payment_intent"] == request.query["payment_intent"]]
        return web.json_response({"object": "list", "data": found, "has_more": False, "url": "/v1/refunds"})


def error(status: int, kind: str, code: str, param: str = "") -> web.Response:
    """Return an error in Stripe's format."""
    return web.json_response({"error": {"type": kind, "code": code, "param": param, "message": "No."}}, status=status)


class StripeBank:
    """See Bank in shop.py. It acts at the fake Stripe; `clock` dates the events."""

    def __init__(self, stripe: FakeStripe, clock: Callable[[], datetime]) -> None:
        self._stripe = stripe
        self._clock = clock

    async def refund(self, refund_id: str, charge_key: str, amount: Money) -> None:
        """See Bank. Stripe chooses the refund's id."""
        intent = self._intent(charge_key)
        if intent is not None and not self._stripe._locked(intent["id"]) and amount.amount <= self._left(intent):
            self._stripe.refund_in_the_dashboard(intent["id"], amount.amount)

    async def dispute(self, charge_key: str) -> None:
        intent = self._intent(charge_key)
        if intent is not None and not self._stripe._locked(intent["id"]) and self._left(intent):
            self._stripe.dispute(intent["id"], self._left(intent))

    async def decide(self, charge_key: str, *, won: bool) -> None:
        intent = self._intent(charge_key)
        for dispute in list(self._stripe.disputes.values()):
            if intent and dispute["payment_intent"] == intent["id"] and dispute["status"] == "needs_response":
                self._stripe.decide(dispute["id"], "won" if won else "lost")

    async def bounce(self, charge_key: str) -> set[str]:
        intent = self._intent(charge_key)
        for refund in self._stripe.refunds.values():
            if intent and refund["payment_intent"] == intent["id"] and refund["status"] == "succeeded":
                refund["status"] = "failed"
                self._stripe.add_event("refund.failed", refund)
                return {charge_key}
        return set()

    async def net(self) -> int:
        return self._stripe.net

    def _intent(self, charge_key: str) -> dict[str, Any] | None:
        self._stripe.now = self._clock()
        intents = self._stripe.intents.values()
        mine = (it for it in intents if it["metadata"]["shop_key"] == charge_key and it["status"] == "succeeded")
        return next(mine, None)

    def _left(self, intent: dict[str, Any]) -> int:
        mine = [r for r in self._stripe.refunds.values() if r["payment_intent"] == intent["id"]]
        lost = [d for d in self._stripe.disputes.values() if d["payment_intent"] == intent["id"]]
        back = sum(r["amount"] for r in mine if r["status"] != "failed")
        return int(intent["amount"] - back - sum(d["amount"] for d in lost if d["status"] == "lost"))
