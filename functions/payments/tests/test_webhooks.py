"""Stripe's webhook: only what Stripe signed counts, and it says nothing that is not asked for again."""

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
from functions.payments import refunds, webhooks
from functions.payments.domain import PaymentStatus, RefundStatus
from functions.payments.stripe_webhook import StripeWebhook
from functions.payments.tests.fake_stripe import FakeStripe
from functions.payments.tests.till import ORDER, Till
from functions.runtime.errors import Code, ServiceError
from functions.runtime.identity import Identity

SECRET = "whsec_opensesame"
PAYMENT = "pay_" + "a" * 32
ADMIN = Identity("usr_" + "d" * 32, frozenset({"admin"}))


class Shop:
    """A till at Stripe's, and Stripe's calls."""

    def __init__(self, stripe: FakeStripe) -> None:
        self.stripe = stripe
        self.till = Till(provider=stripe.provider(), webhook=StripeWebhook(SECRET))
        self.till.orders.place(ORDER)

    async def hear(self, kind: str, thing: dict[str, Any], event_id: str = "evt_1") -> None:
        await self.raw(
            msgspec.json.encode({"id": event_id, "object": "event", "type": kind, "data": {"object": thing}})
        )

    async def raw(self, payload: bytes, signature: str | None = None) -> None:
        if signature is None:
            signature = WebhookSignature.generate_signature_header(payload.decode(), SECRET)
        await webhooks.receive(payload, signature, self.till.desk)

    async def lose_the_answer(self) -> None:
        self.stripe.faults = ["", "after"]
        with pytest.raises(ServiceError):
            await self.till.reserve()


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with FakeStripe().serve() as stripe:
        made = Shop(stripe)
        yield made
        await made.till.provider.close()


async def test_a_charge_whose_answer_was_lost_is_settled_by_stripes_word(shop: Shop) -> None:
    await shop.lose_the_answer()
    for _ in range(3):
        await shop.hear("payment_intent.succeeded", shop.stripe.intents["pi_1"])
    assert (await shop.till.payment()).status is PaymentStatus.CAPTURED
    assert len(shop.till.events(PaymentCaptured)) == 1
    assert shop.stripe.net == 5000


async def test_so_is_a_decline(shop: Shop) -> None:
    shop.till.orders.place(ORDER, "tok_insufficient_funds")
    await shop.lose_the_answer()
    await shop.hear("payment_intent.payment_failed", shop.stripe.intents["pi_1"])
    (declined,) = shop.till.events()
    assert isinstance(declined, PaymentDeclined)
    assert declined.reason == "INSUFFICIENT_FUNDS"


async def test_a_payment_method_that_was_used_before_is_declined_at_once_so_that_no_stock_waits(
    shop: Shop,
) -> None:
    shop.till.orders.place(ORDER, "pm_used_before")
    await shop.till.reserve()
    assert [type(event) for event in shop.till.events()] == [PaymentDeclined]
    assert (await shop.till.payment()).status is PaymentStatus.DECLINED
    await shop.till.sweep()
    assert shop.stripe.count("/confirm") == 1


async def test_what_stripe_says_is_not_believed_but_asked_for_again(shop: Shop) -> None:
    shop.stripe.faults = ["", "before"]
    with pytest.raises(ServiceError):
        await shop.till.reserve()
    shop.till.orders.cancel(ORDER)
    await shop.hear("payment_intent.succeeded", {**shop.stripe.intents["pi_1"], "status": "succeeded"})
    assert (await shop.till.payment()).status is PaymentStatus.VOIDED
    assert shop.stripe.net == 0


async def test_while_stripe_does_not_answer_it_is_to_call_again(shop: Shop) -> None:
    await shop.lose_the_answer()
    shop.stripe.faults = ["500"]
    with pytest.raises(ServiceError) as raised:
        await shop.hear("payment_intent.succeeded", shop.stripe.intents["pi_1"])
    assert raised.value.code is Code.UNAVAILABLE
    await shop.hear("payment_intent.succeeded", shop.stripe.intents["pi_1"])
    assert (await shop.till.payment()).status is PaymentStatus.CAPTURED


@pytest.mark.parametrize("kind", ["refund.updated", "charge.refund.updated"])
async def test_a_refund_under_way_is_settled_when_stripe_says_so(shop: Shop, kind: str) -> None:
    await shop.till.reserve()
    shop.stripe.refund_status = "pending"
    made = await refunds.refund(PAYMENT, Money(2000, "EUR"), "", None, ADMIN, shop.till.desk)
    assert made.status is RefundStatus.PENDING
    refund = shop.stripe.refunds["re_1"]
    refund["status"] = "succeeded"
    for event_id in ("evt_1", "evt_1", "evt_2"):
        await shop.hear(kind, refund, event_id)
    assert (await shop.till.payment()).refunded == 2000
    assert len(shop.till.events(PaymentRefunded)) == 1


async def test_a_refund_that_the_bank_sends_back_is_booked_and_shown_to_people(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    await shop.till.reserve()
    await refunds.refund(PAYMENT, None, "", None, ADMIN, shop.till.desk)
    shop.stripe.refunds["re_1"]["status"] = "failed"
    for event_id in ("evt_1", "evt_1", "evt_2"):
        await shop.hear("refund.failed", shop.stripe.refunds["re_1"], event_id)
    assert [record.msg for record in caplog.records if record.levelname == "ERROR"] == ["refund_returned"]
    payment = await shop.till.payment()
    assert (payment.status, payment.refunded, payment.left) == (PaymentStatus.CAPTURED, 0, 5000)
    (failed,) = shop.till.events(PaymentRefundFailed)
    assert isinstance(failed, PaymentRefundFailed)
    assert (failed.amount, failed.refunded) == (Money(5000, "EUR"), Money(0, "EUR"))


@pytest.mark.parametrize("kind", ["refund.created", "charge.refunded"])
async def test_a_refund_in_the_dashboard_is_booked_once(shop: Shop, kind: str) -> None:
    await shop.till.reserve()
    refund = shop.stripe.refund_in_the_dashboard("pi_1", 2000)
    charge = {"object": "charge", "id": "ch_1", "payment_intent": "pi_1", "metadata": {}}
    for event_id in ("evt_1", "evt_1", "evt_2"):
        await shop.hear(kind, refund if kind == "refund.created" else charge, event_id)
    payment = await shop.till.payment()
    assert (payment.status, payment.refunded) == (PaymentStatus.PARTIALLY_REFUNDED, 2000)
    (told,) = shop.till.events(PaymentRefunded)
    assert isinstance(told, PaymentRefunded)
    assert told.amount == Money(2000, "EUR")


async def test_a_refund_in_the_dashboard_that_is_under_way_is_set_aside_until_it_is_there(shop: Shop) -> None:
    await shop.till.reserve()
    refund = shop.stripe.refund_in_the_dashboard("pi_1", 2000, "pending")
    await shop.hear("refund.created", refund)
    assert (await shop.till.payment()).left == 3000
    assert shop.till.events(PaymentRefunded) == []
    refund["status"] = "succeeded"
    await shop.till.sweep()
    assert (await shop.till.payment()).refunded == 2000
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
    shop: Shop, closed: str, status: PaymentStatus, left: int
) -> None:
    await shop.till.reserve()
    await shop.hear("charge.dispute.created", shop.stripe.dispute("pi_1", 5000))
    payment = await shop.till.payment()
    assert (payment.status, payment.left) == (PaymentStatus.DISPUTED, 0)
    with pytest.raises(ServiceError) as raised:
        await refunds.refund(PAYMENT, None, "", None, ADMIN, shop.till.desk)
    assert raised.value.reason == "PAYMENT_DISPUTED"
    decided = shop.stripe.decide("dp_1", closed)
    for event_id in ("evt_2", "evt_2", "evt_3"):
        await shop.hear("charge.dispute.closed", decided, event_id)
    payment = await shop.till.payment()
    assert (payment.status, payment.left) == (status, left)
    assert [type(event) for event in shop.till.events()][1:] == [PaymentDisputed, PaymentDisputeClosed]


async def test_while_the_bank_only_inquires_the_money_can_go_back(shop: Shop) -> None:
    await shop.till.reserve()
    await shop.hear("charge.dispute.created", shop.stripe.dispute("pi_1", 5000, "warning_needs_response"))
    await refunds.refund(PAYMENT, Money(1000, "EUR"), "", None, ADMIN, shop.till.desk)
    shop.stripe.disputes["dp_1"].update(status="needs_response", is_charge_refundable=False)
    await shop.hear("charge.dispute.updated", shop.stripe.disputes["dp_1"], "evt_2")
    payment = await shop.till.payment()
    assert (payment.status, payment.refunded, payment.left) == (PaymentStatus.DISPUTED, 1000, 0)


async def test_without_any_webhook_the_sweep_reads_the_news_whatever_their_number(shop: Shop) -> None:
    orders = [f"ord_{digit * 32}" for digit in "12345"]
    for number, order in enumerate(orders, 1):
        shop.till.orders.place(order)
        await shop.till.reserve(order)
        shop.stripe.now = shop.till.clock.now()
        shop.stripe.refund_in_the_dashboard(f"pi_{number}", 100 * number)
    shop.stripe.page = 2
    await shop.till.sweep()
    assert [(await shop.till.payment(order)).refunded for order in orders] == [100, 200, 300, 400, 500]
    reads = shop.stripe.count("/v1/events")
    await shop.till.sweep(timedelta(hours=1))
    assert shop.stripe.count("/v1/events") > reads
    assert len(shop.till.events(PaymentRefunded)) == 5


@pytest.mark.parametrize(
    ("kind", "thing"),
    [
        ("customer.created", {"object": "customer", "id": "cus_1", "metadata": None}),
        ("payment_intent.succeeded", {"object": "payment_intent", "id": "pi_9", "metadata": {}}),
        ("payment_intent.succeeded", {"object": "payment_intent", "metadata": {"shop_key": "pay_unknown"}}),
        ("balance.available", {"object": "balance", "available": [{"amount": 0}]}),
    ],
)
async def test_what_does_not_concern_us_is_no_error(shop: Shop, kind: str, thing: dict[str, Any]) -> None:
    await shop.hear(kind, thing)
    assert shop.till.events() == []


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
async def test_what_stripe_did_not_sign_just_now_is_refused(
    shop: Shop, payload: bytes, signature: Callable[[], str]
) -> None:
    with pytest.raises(ServiceError) as raised:
        await shop.raw(payload, signature())
    assert (raised.value.code, raised.value.reason) == (Code.INVALID_ARGUMENT, "SIGNATURE_INVALID")
    assert "opensesame" not in repr(raised.value)


async def test_a_signature_holds_for_five_minutes(shop: Shop) -> None:
    await shop.raw(PAYLOAD, signed(at=-290))


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"id": 1}', b'{"id": "e", "type": "t", "data": {}}'])
async def test_what_is_signed_and_no_event_is_refused(shop: Shop, payload: bytes) -> None:
    with pytest.raises(ServiceError) as raised:
        await shop.raw(payload)
    assert raised.value.reason == "WEBHOOK_MALFORMED"


async def test_without_a_secret_there_is_no_webhook() -> None:
    with pytest.raises(ServiceError) as raised:
        await webhooks.receive(PAYLOAD, signed(), Till().desk)
    assert raised.value.code is Code.NOT_FOUND
