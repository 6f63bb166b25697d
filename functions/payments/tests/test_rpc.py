"""The payments API through a real gRPC server, and events through its real door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest

from events.catalog import Payload, StockReserved
from functions.payments.bootstrap import bootstrap
from functions.payments.settings import Settings
from functions.payments.tests.till import ORDER, PAYER, Till
from functions.runtime.process import ServiceRunner
from functions.runtime.rpc.errors import from_rpc_error
from functions.runtime.testing import FakeVerifier, bearer, keyed, posted
from proto.shop.money.v1 import money_pb2
from proto.shop.payments.v1 import payments_pb2 as pb
from proto.shop.payments.v1 import payments_pb2_grpc

PAYMENT = "pay_" + "a" * 32
OWNER = f"user:{PAYER}"
STRANGER = "user:usr_" + "f" * 32
ADMIN = "admin:usr_" + "d" * 32


class Desk:
    """One served payments service and its stub."""

    def __init__(self, runner: ServiceRunner, till: Till, channel: grpc.aio.Channel) -> None:
        self.runner = runner
        self.till = till
        self.stub = payments_pb2_grpc.PaymentsServiceStub(channel)

    async def call(self, method: str, request: Any, token: str = ADMIN) -> Any:
        return await getattr(self.stub, method)(request, metadata=bearer(token), timeout=5)

    async def refused(self, method: str, request: Any, token: str = ADMIN) -> tuple[str, str]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.call(method, request, token)
        error = from_rpc_error(raised.value)
        return error.code.value, error.reason


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    till = Till()
    till.orders.place(ORDER)
    await till.reserve()
    settings = Settings(store_url="memory:", broker_url="http://127.0.0.1:1/", drain_seconds=0.2)
    function = bootstrap(
        settings,
        store=till.store,
        clock=till.clock,
        provider=till.provider,
        orders=till.orders,
        verifier=FakeVerifier(),
    )
    runner = ServiceRunner(keyed(function))
    await runner.start()
    async with grpc.aio.insecure_channel(runner.grpc_address) as channel:
        yield Desk(runner, till, channel)
    await runner.stop()


async def test_the_owner_and_an_admin_read_the_payment_of_an_order(desk: Desk) -> None:
    for token in (OWNER, ADMIN):
        payment = (
            await desk.call("GetOrderPayment", pb.GetOrderPaymentRequest(order_id=ORDER), token)
        ).payment
        assert (payment.id, payment.order_id, payment.user_id) == (PAYMENT, ORDER, PAYER)
        assert payment.status == pb.PAYMENT_STATUS_CAPTURED
        assert (payment.amount.amount, payment.captured.amount, payment.refunded.amount) == (5000, 5000, 0)
        assert payment.refunded.currency == "EUR"
        assert payment.created_at.ToDatetime() <= payment.updated_at.ToDatetime()


async def test_a_person_lists_their_own_payments_and_nobody_elses(desk: Desk) -> None:
    later, ended = "ord_" + "b" * 32, "ord_" + "c" * 32
    desk.till.clock.advance(timedelta(seconds=1))
    desk.till.orders.place(later)
    await desk.till.reserve(later)
    await desk.till.cancel(ended)  # before any charge: there is no payment to show
    mine = pb.ListPaymentsRequest(user_id=PAYER, limit=1)
    first = await desk.call("ListPayments", mine, OWNER)
    second = await desk.call("ListPayments", pb.ListPaymentsRequest(limit=2, cursor=first.next_cursor), OWNER)
    assert [payment.order_id for payment in (*first.payments, *second.payments)] == [ORDER, later]
    assert await desk.call("ListPayments", mine, ADMIN) == first
    assert await desk.refused("ListPayments", mine, STRANGER) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    nothing = await desk.call("ListPayments", pb.ListPaymentsRequest(), STRANGER)
    assert not nothing.payments


async def test_to_others_and_for_unknown_orders_there_is_no_payment(desk: Desk) -> None:
    request = pb.GetOrderPaymentRequest(order_id=ORDER)
    unknown = pb.GetOrderPaymentRequest(order_id="ord_" + "0" * 32)
    gone = ("NOT_FOUND", "PAYMENT_NOT_FOUND")
    assert await desk.refused("GetOrderPayment", request, STRANGER) == gone
    assert (await desk.refused("GetOrderPayment", request, "service:orders"))[0] == "PERMISSION_DENIED"
    assert await desk.refused("GetOrderPayment", unknown, OWNER) == gone
    assert (await desk.refused("GetOrderPayment", request, "garbage"))[0] == "UNAUTHENTICATED"


async def test_an_order_that_ended_before_any_charge_has_no_payment_to_show(desk: Desk) -> None:
    other = "ord_" + "c" * 32
    await desk.till.cancel(other)
    request = pb.GetOrderPaymentRequest(order_id=other)
    assert await desk.refused("GetOrderPayment", request, OWNER) == ("NOT_FOUND", "PAYMENT_NOT_FOUND")
    batch = await desk.call("BatchGetPayments", pb.BatchGetPaymentsRequest(payment_ids=["pay_" + "c" * 32]))
    assert [payment.status for payment in batch.payments] == [pb.PAYMENT_STATUS_VOIDED]
    assert not batch.payments[0].HasField("amount")


async def test_payments_are_read_in_batches_by_admins(desk: Desk) -> None:
    request = pb.BatchGetPaymentsRequest(payment_ids=[PAYMENT, PAYMENT, "pay_" + "0" * 32])
    answer = await desk.call("BatchGetPayments", request)
    assert [payment.id for payment in answer.payments] == [PAYMENT]
    assert (await desk.refused("BatchGetPayments", request, OWNER))[0] == "PERMISSION_DENIED"
    for ids in ([], ["pay_x"] * 101):
        empty = pb.BatchGetPaymentsRequest(payment_ids=ids)
        assert (await desk.refused("BatchGetPayments", empty))[0] == "INVALID_ARGUMENT"


async def test_an_admin_refunds_in_parts_and_the_rest(desk: Desk) -> None:
    part = pb.RefundPaymentRequest(
        payment_id=PAYMENT, amount=money_pb2.Money(amount=2000, currency="EUR"), idempotency_key="k1"
    )
    first = (await desk.call("RefundPayment", part)).refund
    assert (first.status, first.amount.amount) == (pb.REFUND_STATUS_SUCCEEDED, 2000)
    assert ((await desk.call("RefundPayment", part)).refund).id == first.id
    rest = (
        await desk.call("RefundPayment", pb.RefundPaymentRequest(payment_id=PAYMENT, reason="GOODWILL"))
    ).refund
    assert (rest.amount.amount, rest.reason) == (3000, "GOODWILL")
    payment = (await desk.call("GetOrderPayment", pb.GetOrderPaymentRequest(order_id=ORDER), OWNER)).payment
    assert (payment.status, payment.refunded.amount) == (pb.PAYMENT_STATUS_REFUNDED, 5000)
    page = await desk.call("ListRefunds", pb.ListRefundsRequest(payment_id=PAYMENT), OWNER)
    assert {refund.id for refund in page.refunds} == {first.id, rest.id}


async def test_refunds_that_cannot_be_are_refused(desk: Desk) -> None:
    def request(**fields: Any) -> pb.RefundPaymentRequest:
        return pb.RefundPaymentRequest(payment_id=PAYMENT, **fields)

    euros = money_pb2.Money(amount=5001, currency="EUR")
    assert await desk.refused("RefundPayment", request(amount=euros)) == (
        "FAILED_PRECONDITION",
        "REFUND_EXCEEDS_CAPTURED",
    )
    assert (await desk.refused("RefundPayment", request(), OWNER))[0] == "PERMISSION_DENIED"
    for wrong in (
        {"idempotency_key": ""},
        {"idempotency_key": "k" * 256},
        {"reason": "because"},
        {"amount": money_pb2.Money(amount=0, currency="EUR")},
        {"amount": money_pb2.Money(amount=1, currency="euro")},
    ):
        assert (await desk.refused("RefundPayment", request(**wrong)))[0] == "INVALID_ARGUMENT"


async def test_admins_page_through_the_ledger_oldest_first(desk: Desk) -> None:
    await desk.till.cancel()
    first = await desk.call("ListLedger", pb.ListLedgerRequest(limit=1))
    rest = await desk.call("ListLedger", pb.ListLedgerRequest(limit=1, cursor=first.next_cursor))
    entries = [*first.entries, *rest.entries]
    assert {(entry.kind, entry.amount.amount, entry.outcome) for entry in entries} == {
        ("charge", 5000, "succeeded"),
        ("refund", 5000, "succeeded"),
    }
    assert {entry.payment_id for entry in entries} == {PAYMENT}
    assert rest.next_cursor == ""
    assert (await desk.refused("ListLedger", pb.ListLedgerRequest(), OWNER))[0] == "PERMISSION_DENIED"
    assert (await desk.refused("ListLedger", pb.ListLedgerRequest(limit=101)))[0] == "INVALID_ARGUMENT"
    assert (await desk.refused("ListLedger", pb.ListLedgerRequest(cursor="x")))[1] == "INVALID_CURSOR"


async def test_the_webhook_needs_no_token_and_is_not_there_without_a_secret(desk: Desk) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await desk.stub.ReceiveWebhook(
            pb.ReceiveWebhookRequest(payload=b"{}", signature="t=1,v1=0"), timeout=5
        )
    assert from_rpc_error(raised.value).reason == "WEBHOOK_NOT_FOUND"


async def test_the_event_door_charges_and_asks_for_redelivery_while_the_provider_is_away(desk: Desk) -> None:
    other = "ord_" + "e" * 32
    desk.till.orders.place(other)
    event = StockReserved(order_id=other, expires_at=desk.till.clock.now())
    desk.till.provider.down = True
    assert await post(desk, event) == 503
    desk.till.provider.down = False
    assert await post(desk, event) == 204
    assert await post(desk, event) == 204
    assert await desk.till.net() == 10_000


async def post(desk: Desk, event: Payload) -> int:
    """The status that a broker sees."""
    import aiohttp  # only this test posts

    headers, data = posted(event, f"{event.TYPE}-{event.subject}")
    async with (
        aiohttp.ClientSession() as session,
        session.post(desk.runner.http_url, data=data, headers=headers) as answer,
    ):
        return answer.status
