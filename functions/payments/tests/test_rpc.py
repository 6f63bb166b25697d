"""The payments API through a real gRPC server, and events through the real event server."""

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
from functions.payments.tests.shop import ORDER, PAYER, Shop
from functions.runtime.process import ServiceRunner
from functions.runtime.rpc.errors import from_rpc_error
from functions.runtime.tests.support import FakeVerifier, bearer, keyed, posted
from proto.shop.money.v1 import money_pb2
from proto.shop.payments.v1 import payments_pb2 as pb
from proto.shop.payments.v1 import payments_pb2_grpc

PAYMENT = "pay_" + "a" * 32
OWNER = f"user:{PAYER}"
STRANGER = "user:usr_" + "f" * 32
ADMIN = "admin:usr_" + "d" * 32


class Client:
    """A client of a payments service that is served; `shop` is that service."""

    def __init__(self, runner: ServiceRunner, shop: Shop, channel: grpc.aio.Channel) -> None:
        self.runner = runner
        self.shop = shop
        self.stub = payments_pb2_grpc.PaymentsServiceStub(channel)

    async def call(self, method: str, request: Any, token: str = ADMIN) -> Any:
        return await getattr(self.stub, method)(request, metadata=bearer(token), timeout=5)

    async def refused(self, method: str, request: Any, token: str = ADMIN) -> tuple[str, str]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.call(method, request, token)
        error = from_rpc_error(raised.value)
        return error.code.value, error.reason


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    shop = Shop()
    shop.orders.place(ORDER)
    await shop.reserve()
    settings = Settings(store_url="memory:", broker_url="http://127.0.0.1:1/", drain_seconds=0.2)
    function = bootstrap(
        settings,
        store=shop.store,
        clock=shop.clock,
        provider=shop.provider,
        orders=shop.orders,
        verifier=FakeVerifier(),
    )
    runner = ServiceRunner(keyed(function))
    await runner.start()
    async with grpc.aio.insecure_channel(runner.grpc_address) as channel:
        yield Client(runner, shop, channel)
    await runner.stop()


async def test_the_owner_and_an_admin_read_the_payment_of_an_order(client: Client) -> None:
    for token in (OWNER, ADMIN):
        payment = (await client.call("GetOrderPayment", pb.GetOrderPaymentRequest(order_id=ORDER), token)).payment
        assert (payment.id, payment.order_id, payment.user_id) == (PAYMENT, ORDER, PAYER)
        assert payment.status == pb.PAYMENT_STATUS_CAPTURED
        assert (payment.amount.amount, payment.captured.amount, payment.refunded.amount) == (5000, 5000, 0)
        assert payment.refunded.currency == "EUR"
        assert payment.created_at.ToDatetime() <= payment.updated_at.ToDatetime()


async def test_a_person_lists_their_own_payments_and_nobody_elses(client: Client) -> None:
    later, ended = "ord_" + "b" * 32, "ord_" + "c" * 32
    client.shop.clock.advance(timedelta(seconds=1))
    client.shop.orders.place(later)
    await client.shop.reserve(later)
    await client.shop.cancel(ended)  # before any charge: there is no payment to show
    mine = pb.ListPaymentsRequest(user_id=PAYER, limit=1)
    first = await client.call("ListPayments", mine, OWNER)
    second = await client.call("ListPayments", pb.ListPaymentsRequest(limit=2, cursor=first.next_cursor), OWNER)
    assert [payment.order_id for payment in (*first.payments, *second.payments)] == [ORDER, later]
    assert await client.call("ListPayments", mine, ADMIN) == first
    assert await client.refused("ListPayments", mine, STRANGER) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    nothing = await client.call("ListPayments", pb.ListPaymentsRequest(), STRANGER)
    assert not nothing.payments


async def test_a_payment_is_not_found_by_others_or_for_an_unknown_order(client: Client) -> None:
    request = pb.GetOrderPaymentRequest(order_id=ORDER)
    unknown = pb.GetOrderPaymentRequest(order_id="ord_" + "0" * 32)
    gone = ("NOT_FOUND", "PAYMENT_NOT_FOUND")
    assert await client.refused("GetOrderPayment", request, STRANGER) == gone
    assert (await client.refused("GetOrderPayment", request, "service:orders"))[0] == "PERMISSION_DENIED"
    assert await client.refused("GetOrderPayment", unknown, OWNER) == gone
    assert (await client.refused("GetOrderPayment", request, "garbage"))[0] == "UNAUTHENTICATED"


async def test_an_order_that_ended_before_any_charge_has_no_payment_to_show(client: Client) -> None:
    other = "ord_" + "c" * 32
    await client.shop.cancel(other)
    request = pb.GetOrderPaymentRequest(order_id=other)
    assert await client.refused("GetOrderPayment", request, OWNER) == ("NOT_FOUND", "PAYMENT_NOT_FOUND")
    batch = await client.call("BatchGetPayments", pb.BatchGetPaymentsRequest(payment_ids=["pay_" + "c" * 32]))
    assert [payment.status for payment in batch.payments] == [pb.PAYMENT_STATUS_VOIDED]
    assert not batch.payments[0].HasField("amount")


async def test_payments_are_read_in_batches_by_admins(client: Client) -> None:
    request = pb.BatchGetPaymentsRequest(payment_ids=[PAYMENT, PAYMENT, "pay_" + "0" * 32])
    answer = await client.call("BatchGetPayments", request)
    assert [payment.id for payment in answer.payments] == [PAYMENT]
    assert (await client.refused("BatchGetPayments", request, OWNER))[0] == "PERMISSION_DENIED"
    for ids in ([], ["pay_x"] * 101):
        empty = pb.BatchGetPaymentsRequest(payment_ids=ids)
        assert (await client.refused("BatchGetPayments", empty))[0] == "INVALID_ARGUMENT"


async def test_an_admin_refunds_in_parts_and_the_rest(client: Client) -> None:
    part = pb.RefundPaymentRequest(
        payment_id=PAYMENT, amount=money_pb2.Money(amount=2000, currency="EUR"), idempotency_key="k1"
    )
    first = (await client.call("RefundPayment", part)).refund
    assert (first.status, first.amount.amount) == (pb.REFUND_STATUS_SUCCEEDED, 2000)
    assert ((await client.call("RefundPayment", part)).refund).id == first.id
    rest = (await client.call("RefundPayment", pb.RefundPaymentRequest(payment_id=PAYMENT, reason="GOODWILL"))).refund
    assert (rest.amount.amount, rest.reason) == (3000, "GOODWILL")
    payment = (await client.call("GetOrderPayment", pb.GetOrderPaymentRequest(order_id=ORDER), OWNER)).payment
    assert (payment.status, payment.refunded.amount) == (pb.PAYMENT_STATUS_REFUNDED, 5000)
    page = await client.call("ListRefunds", pb.ListRefundsRequest(payment_id=PAYMENT), OWNER)
    assert {refund.id for refund in page.refunds} == {first.id, rest.id}


async def test_invalid_refunds_are_refused(client: Client) -> None:
    def request(**fields: Any) -> pb.RefundPaymentRequest:
        return pb.RefundPaymentRequest(payment_id=PAYMENT, **fields)

    euros = money_pb2.Money(amount=5001, currency="EUR")
    assert await client.refused("RefundPayment", request(amount=euros)) == (
        "FAILED_PRECONDITION",
        "REFUND_EXCEEDS_CAPTURED",
    )
    assert (await client.refused("RefundPayment", request(), OWNER))[0] == "PERMISSION_DENIED"
    for wrong in (
        {"idempotency_key": ""},
        {"idempotency_key": "k" * 256},
        {"reason": "because"},
        {"amount": money_pb2.Money(amount=0, currency="EUR")},
        {"amount": money_pb2.Money(amount=1, currency="euro")},
    ):
        assert (await client.refused("RefundPayment", request(**wrong)))[0] == "INVALID_ARGUMENT"


async def test_admins_page_through_the_ledger_oldest_first(client: Client) -> None:
    await client.shop.cancel()
    first = await client.call("ListLedger", pb.ListLedgerRequest(limit=1))
    rest = await client.call("ListLedger", pb.ListLedgerRequest(limit=1, cursor=first.next_cursor))
    entries = [*first.entries, *rest.entries]
    assert {(entry.kind, entry.amount.amount, entry.outcome) for entry in entries} == {
        ("charge", 5000, "succeeded"),
        ("refund", 5000, "succeeded"),
    }
    assert {entry.payment_id for entry in entries} == {PAYMENT}
    assert rest.next_cursor == ""
    assert (await client.refused("ListLedger", pb.ListLedgerRequest(), OWNER))[0] == "PERMISSION_DENIED"
    assert (await client.refused("ListLedger", pb.ListLedgerRequest(limit=101)))[0] == "INVALID_ARGUMENT"
    assert (await client.refused("ListLedger", pb.ListLedgerRequest(cursor="x")))[1] == "INVALID_CURSOR"


async def test_the_webhook_needs_no_token_and_is_not_found_without_a_secret(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await client.stub.ReceiveWebhook(pb.ReceiveWebhookRequest(payload=b"{}", signature="t=1,v1=0"), timeout=5)
    assert from_rpc_error(raised.value).reason == "WEBHOOK_NOT_FOUND"


async def test_the_event_server_charges_and_asks_for_redelivery_while_the_provider_is_unavailable(
    client: Client,
) -> None:
    other = "ord_" + "e" * 32
    client.shop.orders.place(other)
    event = StockReserved(order_id=other, expires_at=client.shop.clock.now())
    client.shop.provider.down = True
    assert await post(client, event) == 503
    client.shop.provider.down = False
    assert await post(client, event) == 204
    assert await post(client, event) == 204
    assert await client.shop.net() == 10_000


async def post(client: Client, event: Payload) -> int:
    """Post an event; return the status that a broker sees."""
    import aiohttp  # only this test posts

    headers, data = posted(event, f"{event.TYPE}-{event.subject}")
    async with (
        aiohttp.ClientSession() as session,
        session.post(client.runner.http_url, data=data, headers=headers) as answer,
    ):
        return answer.status
