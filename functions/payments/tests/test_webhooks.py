"""Stripe's webhook: only signed events count, and each is verified by a call to Stripe."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from stripe import WebhookSignature

from events.catalog import (
    Money,
    PaymentCaptured,
    PaymentDeclined,
    PaymentDisputeClosed,
    PaymentDisputed,
    PaymentRefunded,
    PaymentRefundFailed,
)
from functions.payments.domain import PaymentStatus, RefundStatus
from functions.payments.providers.stripe_webhook import StripeWebhook
from functions.payments.refunds import RefundPayment
from functions.payments.tests.fake_stripe import FakeStripe
from functions.payments.tests.shop import ORDER, Shop
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import Identity

SECRET = "whsec_opensesame"
PAYMENT = "pay_" + "a" * 32
ADMIN = Identity("usr_" + "d" * 32, frozenset({"admin"}))


class StripeShop(Shop):
    """A shop that charges at Stripe and receives its webhooks."""

    def __init__(self, stripe: FakeStripe) -> None:
        super().__init__(provider=stripe.provider(), webhook=StripeWebhook(SECRET))
        self.stripe = stripe
        self.orders.place(ORDER)

    async def receive_webhook(self, kind: str, thing: dict[str, Any], event_id: str = "evt_1") -> None:
        await self.receive_payload(
            msgspec.json.encode({"id": event_id, "object": "event", "type": kind, "data": {"object": thing}})
        )

    async def receive_payload(self, payload: bytes, signature: str | None = None) -> None:
        if signature is None:
            signature = WebhookSignature.generate_signature_header(payload.decode(), SECRET)
        await self.payments.receive_webhook(payload, signature)

    async def lose_the_answer(self) -> None:
        self.stripe.faults = ["", "after"]
        with pytest.raises(ServiceError):
            await self.reserve()


@pytest.fixture
async def shop() -> AsyncIterator[StripeShop]:
    async with FakeStripe().serve() as stripe:
        made = StripeShop(stripe)
        yield made
        await made.provider.close()


async def test_a_charge_whose_answer_was_lost_is_settled_by_stripes_webhook(shop: StripeShop) -> None:
    await shop.lose_the_answer()
    for _ in range(3):
        await shop.receive_webhook("payment_intent.succeeded", shop.stripe.intents["pi_1"])
    assert (await shop.payment()).status is PaymentStatus.CAPTURED
    assert len(shop.events(PaymentCaptured)) == 1
    assert shop.stripe.net == 5000


async def test_a_decline_whose_answer_was_lost_is_settled_by_stripes_webhook(shop: StripeShop) -> None:
    shop.orders.place(ORDER, "tok_insufficient_funds")
    await shop.lose_the_answer()
    await shop.receive_webhook("payment_intent.payment_failed", shop.stripe.intents["pi_1"])
    (declined,) = shop.events()
    assert isinstance(declined, PaymentDeclined)
    assert declined.reason == "INSUFFICIENT_FUNDS"


async def test_a_payment_method_that_was_used_before_is_declined_at_once_so_that_no_stock_waits(
    shop: StripeShop,
) -> None:
    shop.orders.place(ORDER, "pm_used_before")
    await shop.reserve()
    assert [type(event) for event in shop.events()] == [PaymentDeclined]
    assert (await shop.payment()).status is PaymentStatus.DECLINED
    await shop.sweep()
    assert shop.stripe.count("/confirm") == 1


async def test_an_event_is_not_trusted_but_verified_by_a_call_to_stripe(shop: StripeShop) -> None:
    shop.stripe.faults = ["", "before"]
    with pytest.raises(ServiceError):
        await shop.reserve()
    shop.orders.cancel(ORDER)
    await shop.receive_webhook("payment_intent.succeeded", {**shop.stripe.intents["pi_1"], "status": "succeeded"})
    assert (await shop.payment()).status is PaymentStatus.VOIDED
    assert shop.stripe.net == 0


async def test_stripe_sends_the_event_again_if_its_api_does_not_answer(shop: StripeShop) -> None:
    await shop.lose_the_answer()
    shop.stripe.faults = ["500"]
    with pytest.raises(ServiceError) as raised:
        await shop.receive_webhook("payment_intent.succeeded", shop.stripe.intents["pi_1"])
    assert raised.value.code is Code.UNAVAILABLE
    await shop.receive_webhook("payment_intent.succeeded", shop.stripe.intents["pi_1"])
    assert (await shop.payment()).status is PaymentStatus.CAPTURED


@pytest.mark.parametrize("kind", ["refund.updated", "charge.refund.updated"])
async def test_a_pending_refund_is_settled_by_stripes_webhook(shop: StripeShop, kind: str) -> None:
    await shop.reserve()
    shop.stripe.refund_status = "pending"
    made = await shop.refunds.refund(RefundPayment(PAYMENT, Money(2000, "EUR")), ADMIN)
    assert made.status is RefundStatus.PENDING
    refund = shop.stripe.refunds["re_1"]
    refund["status"] = "succeeded"
    for event_id in ("evt_1", "evt_1", "evt_2"):
        await shop.receive_webhook(kind, refund, event_id)
    assert (await shop.payment()).refunded == 2000
    assert len(shop.events(PaymentRefunded)) == 1


async def test_a_refund_that_the_bank_returns_is_booked_and_logged_as_an_error(
    shop: StripeShop, caplog: pytest.LogCaptureFixture
) -> None:
    await shop.reserve()
    await shop.refunds.refund(RefundPayment(PAYMENT, None), ADMIN)
    shop.stripe.refunds["re_1"]["status"] = "failed"
    for event_id in ("evt_1", "evt_1", "evt_2"):
        await shop.receive_webhook("refund.failed", shop.stripe.refunds["re_1"], event_id)
    assert [record.msg for record in caplog.records if record.levelname == "ERROR"] == ["refund_returned"]
    payment = await shop.payment()
    assert (payment.status, payment.refunded, payment.refundable) == (PaymentStatus.CAPTURED, 0, 5000)
    (failed,) = shop.events(PaymentRefundFailed)
    assert isinstance(failed, PaymentRefundFailed)
    assert (failed.amount, failed.refunded) == (Money(5000, "EUR"), Money(0, "EUR"))


@pytest.mark.parametrize("kind", ["refund.created", "charge.refunded"])
async def test_a_refund_in_the_dashboard_is_booked_once(shop: StripeShop, kind: str) -> None:
    await shop.reserve()
    refund = shop.stripe.refund_in_the_dashboard("pi_1", 2000)
    charge = {"object": "charge", "id": "ch_1", "payment_intent": "pi_1", "metadata": {}}
    for event_id in ("evt_1", "evt_1", "evt_2"):
        await shop.receive_webhook(kind, refund if kind == "refund.created" else charge, event_id)
    payment = await shop.payment()
    assert (payment.status, payment.refunded) == (PaymentStatus.PARTIALLY_REFUNDED, 2000)
    (told,) = shop.events(PaymentRefunded)
    assert isinstance(told, PaymentRefunded)
    assert told.amount == Money(2000, "EUR")


async def test_a_pending_refund_in_the_dashboard_is_set_aside_until_it_completes(
    shop: StripeShop,
) -> None:
    await shop.reserve()
    refund = shop.stripe.refund_in_the_dashboard("pi_1", 2000, "pending")
    await shop.receive_webhook("refund.created", refund)
    assert (await shop.payment()).refundable == 3000
    assert shop.events(PaymentRefunded) == []
    refund["status"] = "succeeded"
    await shop.sweep()
    assert (await shop.payment()).refunded == 2000
    assert len(shop.stripe.refunds) == 1


@pytest.mark.parametrize(
    ("closed", "status", "left"),
    [
        ("won", PaymentStatus.CAPTURED, 5000),
        ("warning_closed", PaymentStatus.CAPTURED, 5000),
        ("lost", PaymentStatus.CHARGED_BACK, 0),
        ("prevented", PaymentStatus.CHARGED_BACK, 0),
    ],
)
async def test_a_dispute_is_booked_when_it_opens_and_when_it_is_decided(
    shop: StripeShop, closed: str, status: PaymentStatus, left: int
) -> None:
    await shop.reserve()
    await shop.receive_webhook("charge.dispute.created", shop.stripe.dispute("pi_1", 5000))
    payment = await shop.payment()
    assert (payment.status, payment.refundable) == (PaymentStatus.DISPUTED, 0)
    with pytest.raises(ServiceError) as raised:
        await shop.refunds.refund(RefundPayment(PAYMENT, None), ADMIN)
    assert raised.value.reason == "PAYMENT_DISPUTED"
    decided = shop.stripe.decide("dp_1", closed)
    for event_id in ("evt_2", "evt_2", "evt_3"):
        await shop.receive_webhook("charge.dispute.closed", decided, event_id)
    payment = await shop.payment()
    assert (payment.status, payment.refundable) == (status, left)
    assert [type(event) for event in shop.events()][1:] == [PaymentDisputed, PaymentDisputeClosed]


async def test_during_an_inquiry_of_the_bank_a_refund_is_possible(shop: StripeShop) -> None:
    await shop.reserve()
    await shop.receive_webhook("charge.dispute.created", shop.stripe.dispute("pi_1", 5000, "warning_needs_response"))
    await shop.refunds.refund(RefundPayment(PAYMENT, Money(1000, "EUR")), ADMIN)
    shop.stripe.disputes["dp_1"].update(status="needs_response", is_charge_refundable=False)
    await shop.receive_webhook("charge.dispute.updated", shop.stripe.disputes["dp_1"], "evt_2")
    payment = await shop.payment()
    assert (payment.status, payment.refunded, payment.refundable) == (PaymentStatus.DISPUTED, 1000, 0)


async def test_without_any_webhook_the_sweep_reads_all_changes(shop: StripeShop) -> None:
    orders = [f"ord_{digit * 32}" for digit in "12345"]
    for number, order in enumerate(orders, 1):
        shop.orders.place(order)
        await shop.reserve(order)
        shop.stripe.now = shop.clock.now()
        shop.stripe.refund_in_the_dashboard(f"pi_{number}", 100 * number)
    shop.stripe.page = 2
    await shop.sweep()
    assert [(await shop.payment(order)).refunded for order in orders] == [100, 200, 300, 400, 500]
    reads = shop.stripe.count("/v1/events")
    await shop.sweep(timedelta(hours=1))
    assert shop.stripe.count("/v1/events") > reads
    assert len(shop.events(PaymentRefunded)) == 5


@pytest.mark.parametrize(
    ("kind", "thing"),
    [
        ("customer.created", {"object": "customer", "id": "cus_1", "metadata": None}),
        ("payment_intent.succeeded", {"object": "payment_intent", "id": "pi_9", "metadata": {}}),
        ("payment_intent.succeeded", {"object": "payment_intent", "metadata": {"shop_key": "pay_unknown"}}),
        ("balance.available", {"object": "balance", "available": [{"amount": 0}]}),
    ],
)
async def test_an_event_about_anything_else_is_ignored(shop: StripeShop, kind: str, thing: dict[str, Any]) -> None:
    await shop.receive_webhook(kind, thing)
    assert shop.events() == []


PAYLOAD = b'{"id": "evt_1", "type": "x", "data": {"object": {}}}'


def signed(payload: bytes = PAYLOAD, secret: str = SECRET, at: float = 0) -> str:
    header: str = WebhookSignature.generate_signature_header(payload.decode(), secret, int(time.time() + at))
    return header


@pytest.mark.parametrize(
    ("payload", "signature"),
    [
        pytest.param(PAYLOAD, lambda: "", id="none"),
        pytest.param(PAYLOAD, lambda: "t=1,v1=" + "0" * 64, id="long ago"),
        pytest.param(PAYLOAD, lambda: "gibberish", id="gibberish"),
        pytest.param(PAYLOAD, lambda: "t=" + "9" * 5000 + ",v1=0", id="a time of 5,000 digits"),
        pytest.param(PAYLOAD, lambda: signed().replace("v1=", "v1=é"), id="no ASCII"),
        pytest.param(PAYLOAD, lambda: signed().replace("v1=", "v0="), id="another scheme"),
        pytest.param(PAYLOAD, lambda: signed(secret="whsec_other"), id="another secret"),
        pytest.param(PAYLOAD, lambda: signed(at=-301), id="too old"),
        pytest.param(PAYLOAD + b" ", signed, id="another payload"),
        pytest.param(b"\xff", lambda: "t=1,v1=0", id="no text"),
    ],
)
async def test_an_event_without_a_fresh_valid_signature_is_refused(
    shop: StripeShop, payload: bytes, signature: Callable[[], str]
) -> None:
    with pytest.raises(ServiceError) as raised:
        await shop.receive_payload(payload, signature())
    assert (raised.value.code, raised.value.reason) == (Code.INVALID_ARGUMENT, "SIGNATURE_INVALID")
    assert "opensesame" not in repr(raised.value)


async def test_a_signature_holds_for_five_minutes(shop: StripeShop) -> None:
    await shop.receive_payload(PAYLOAD, signed(at=-290))


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"id": 1}', b'{"id": "e", "type": "t", "data": {}}'])
async def test_a_signed_payload_that_is_not_an_event_is_refused(shop: StripeShop, payload: bytes) -> None:
    with pytest.raises(ServiceError) as raised:
        await shop.receive_payload(payload)
    assert raised.value.reason == "WEBHOOK_MALFORMED"


async def test_without_a_secret_there_is_no_webhook() -> None:
    with pytest.raises(ServiceError) as raised:
        await Shop().payments.receive_webhook(PAYLOAD, signed())
    assert raised.value.code is Code.NOT_FOUND
