"""Stripe's API as far as payments use it, with state: idempotency keys, declines, and faults on request.

Tokens are the simulated provider's, so that one contract holds for both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from functions.payments import stripe_provider
from functions.payments.stripe_api import StripeApi
from functions.payments.stripe_provider import StripeProvider
from functions.runtime.clock import Clock, ManualClock
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import Store

API_KEY = "sk_test_opensesame"
_DECLINES = {"tok_declined": "generic_decline", "tok_insufficient_funds": "insufficient_funds"}
REUSED = "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment."
"""What Stripe says of it, with neither a code nor a parameter."""
MINIMUM = {"eur": 50, "usd": 50, "gbp": 30, "jpy": 50, "huf": 17500}
STEP = {**dict.fromkeys(("bhd", "jod", "kwd", "omr", "tnd"), 10), "isk": 100, "ugx": 100}
_OPEN = ("requires_payment_method", "requires_confirmation")

Handler = Callable[[web.Request], Awaitable[web.Response]]
Form = dict[str, str]


class FakeStripe:
    """What Stripe knows. `faults` are used up one a request:

    `before`: the request is lost; `after`: the answer is lost; `late`: it comes when nobody waits any more; a number:
    this status, and nothing done; `status/type/code/param`: this error, and nothing done.
    """

    def __init__(self) -> None:
        self.intents: dict[str, dict[str, Any]] = {}
        self.refunds: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, Form]] = []
        self.keys: list[str] = []
        self.faults: list[str] = []
        self.refund_status = "succeeded"
        self.confirmed_status = "succeeded"
        self.base = ""
        self.late = asyncio.Event()
        self._answers: dict[str, tuple[object, web.Response | None]] = {}

    @property
    def net(self) -> int:
        """What was taken and kept."""
        taken = sum(i["amount"] for i in self.intents.values() if i["status"] == "succeeded")
        back = sum(r["amount"] for r in self.refunds.values() if r["status"] == "succeeded")
        return int(taken - back)

    def count(self, ending: str) -> int:
        """Requests whose path ends like this."""
        return sum(path.endswith(ending) for _, path, _ in self.requests)

    def provider(self, store: Store | None = None, clock: Clock | None = None, **api: Any) -> StripeProvider:
        """The adapter in front of it; without retries of the library's, whose pauses are long."""
        clock = clock or ManualClock()
        options = {"seconds": 5.0, "retries": 0, **api}
        store = store or MemoryStore(stripe_provider.KINDS, clock)
        return StripeProvider(StripeApi(API_KEY, self.base, **options), store, clock)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[FakeStripe]:
        """Listen on a free port; `base` is where."""
        app = web.Application(middlewares=[self._door()])
        app.add_routes(
            [
                web.post("/v1/payment_intents", self._create),
                web.get("/v1/payment_intents/{id}", self._read),
                web.post("/v1/payment_intents/{id}/confirm", self._confirm),
                web.post("/v1/payment_intents/{id}/cancel", self._cancel),
                web.post("/v1/refunds", self._refund),
                web.get("/v1/refunds/{id}", self._read_refund),
                web.get("/v1/refunds", self._list_refunds),
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

    def _door(self) -> Any:
        @web.middleware
        async def door(request: web.Request, handler: Handler) -> web.StreamResponse:
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

        return door

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
        return web.Response(
            body=answer.body, status=answer.status, content_type="application/json", charset="utf-8"
        )

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
            return web.json_response(
                {"error": {"type": "invalid_request_error", "message": REUSED}}, status=400
            )
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
        refund = {
            "id": f"re_{len(self.refunds) + 1}",
            "object": "refund",
            "amount": amount,
            "payment_intent": intent["id"],
            "status": self.refund_status,
            "metadata": {"shop_key": form["metadata[shop_key]"]},
        }
        self.refunds[str(refund["id"])] = refund
        return web.json_response(refund)

    async def _read_refund(self, request: web.Request) -> web.Response:
        return web.json_response(self.refunds[request.match_info["id"]])

    async def _list_refunds(self, request: web.Request) -> web.Response:
        found = [r for r in self.refunds.values() if r["payment_intent"] == request.query["payment_intent"]]
        return web.json_response({"object": "list", "data": found, "has_more": False, "url": "/v1/refunds"})


def error(status: int, kind: str, code: str, param: str = "") -> web.Response:
    """An error as Stripe puts it."""
    return web.json_response(
        {"error": {"type": kind, "code": code, "param": param, "message": "No."}}, status=status
    )
