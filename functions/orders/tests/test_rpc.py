"""The gRPC and event servers, on free ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest

from events.catalog import Payload
from functions.orders.bootstrap import bootstrap
from functions.orders.domain import Order
from functions.orders.settings import Settings
from functions.orders.store import MAPPINGS
from functions.orders.tests.shop import (
    ADA,
    ADMINISTRATOR,
    BOB,
    HOME,
    TEAPOT,
    FakeCatalogue,
    captured,
    rejected,
    reserved,
)
from functions.runtime.clock import SystemClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.process import ServiceRunner
from functions.runtime.rpc.errors import from_rpc_error
from functions.runtime.store.memory import MemoryStore
from functions.runtime.tests.support import FakeVerifier, bearer, keyed, posted
from proto.shop.orders.v1 import orders_pb2 as pb
from proto.shop.orders.v1 import orders_pb2_grpc

AS_ADA, AS_BOB = bearer(f"user:{ADA.subject}"), bearer(f"user:{BOB.subject}")
AS_ADMINISTRATOR, AS_PAYMENTS = bearer(f"admin:{ADMINISTRATOR.subject}"), bearer("service:payments")
SOON = 5.0
SHIP_TO = pb.ShippingAddress(**vars(HOME))


class RunningOrders:
    """A running orders service and a client of it."""

    def __init__(self, runner: ServiceRunner, channel: grpc.aio.Channel, http: aiohttp.ClientSession) -> None:
        self.runner = runner
        self.stub = orders_pb2_grpc.OrdersServiceStub(channel)
        self._http = http

    async def place(self, key: str | None = None, **changes: Any) -> pb.Order:
        request = pb.PlaceOrderRequest(
            lines=[pb.LineRequest(product_id=TEAPOT, quantity=2)],
            shipping_address=SHIP_TO,
            payment_token="tok_ok",
            idempotency_key=key,
        )
        request.MergeFrom(pb.PlaceOrderRequest(**changes))
        return (await self.stub.PlaceOrder(request, metadata=AS_ADA, timeout=SOON)).order

    async def read(self, order_id: str) -> Order:
        """Return the order as stored."""
        order = await self.runner.function.store.get(Order, order_id)
        assert order is not None
        return order

    async def receive(self, event: Payload, event_id: str = "e1") -> int:
        """Deliver an event as the broker does, and return the HTTP status."""
        headers, body = posted(event, event_id)
        async with self._http.post(f"{self.runner.http_url}/", data=body, headers=headers) as answer:
            return answer.status


@pytest.fixture
async def server() -> AsyncIterator[RunningOrders]:
    clock = SystemClock()
    settings = Settings(broker_url="http://127.0.0.1:9/nowhere", drain_seconds=0.2)
    function = bootstrap(
        settings,
        store=MemoryStore(MAPPINGS, clock),
        clock=clock,
        catalogue=FakeCatalogue(),
        verifier=FakeVerifier(),
    )
    runner = ServiceRunner(keyed(function))
    await runner.start()
    async with grpc.aio.insecure_channel(runner.grpc_address) as channel, aiohttp.ClientSession() as http:
        yield RunningOrders(runner, channel, http)
    await runner.stop()


async def refused(call: Any) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_however_many_watch_there_is_room_for_orders(server: RunningOrders) -> None:
    order = await server.place()
    watched = pb.WatchOrderRequest(order_id=order.id)
    streams: list[Any] = []
    for number in range(75):  # not all at once: gRPC itself drops calls of such a burst
        administrator = bearer(f"admin:usr_{number:032x}")
        more = [server.stub.WatchOrder(watched, metadata=administrator) for _ in range(20)]
        await asyncio.gather(*(stream.read() for stream in more), return_exceptions=True)
        streams += more

    error = await refused(streams[-1].read())
    assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS")
    assert (await server.place()).status == pb.ORDER_STATUS_PLACED
    for stream in streams:
        stream.cancel()


async def test_one_person_watches_a_bounded_number_and_takes_nothing_from_others(
    server: RunningOrders,
) -> None:
    order = await server.place()
    watched = pb.WatchOrderRequest(order_id=order.id)
    streams = [server.stub.WatchOrder(watched, metadata=AS_ADA) for _ in range(30)]
    opened = await asyncio.gather(*(stream.read() for stream in streams), return_exceptions=True)

    refusals = [from_rpc_error(each) for each in opened if isinstance(each, grpc.aio.AioRpcError)]
    assert [error.reason for error in refusals] == ["TOO_MANY_WATCHERS"] * 10
    other: Any = server.stub.WatchOrder(watched, metadata=AS_ADMINISTRATOR)
    assert (await other.read()).order.id == order.id
    for stream in (*streams, other):
        stream.cancel()


async def test_an_order_lives_its_whole_life_by_grpc_and_events(server: RunningOrders) -> None:
    placed = await server.place()
    assert (placed.status, placed.total.amount, placed.total.currency) == (
        pb.ORDER_STATUS_PLACED,
        5_000,
        "EUR",
    )
    assert (placed.user_id, placed.version, placed.lines[0].name) == (ADA.subject, 1, "Teapot")
    assert placed.shipping_address == SHIP_TO
    order = await server.read(placed.id)
    assert await server.receive(reserved(order), "e1") == 204
    assert await server.receive(captured(order), "e2") == 204
    assert await server.receive(captured(order), "e2") == 204
    await server.stub.ShipOrder(pb.ShipOrderRequest(order_id=placed.id), metadata=AS_ADMINISTRATOR)
    done = (await server.stub.DeliverOrder(pb.DeliverOrderRequest(order_id=placed.id), metadata=AS_ADMINISTRATOR)).order
    read = (await server.stub.GetOrder(pb.GetOrderRequest(order_id=placed.id), metadata=AS_ADA)).order
    assert read == done
    assert [entry.status for entry in read.timeline] == [1, 2, 3, 4, 5]
    assert read.created_at == placed.created_at


async def test_an_order_of_nothing_says_all_that_is_missing(server: RunningOrders) -> None:
    error = await refused(server.stub.PlaceOrder(pb.PlaceOrderRequest(), metadata=AS_ADA))
    assert error.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == [
        "lines",
        "shipping_address",
        "payment_token",
    ]


async def test_the_same_key_and_request_replays_and_another_request_is_refused(server: RunningOrders) -> None:
    orders = await asyncio.gather(*[server.place(key="k") for _ in range(50)])
    assert all(order == orders[0] for order in orders)
    error = await refused(server.place(key="k", payment_token="tok_slow"))
    assert error.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_an_empty_key_is_not_no_key(server: RunningOrders) -> None:
    error = await refused(server.place(key=""))
    assert [violation.field for violation in error.violations] == ["idempotency_key"]


async def test_anothers_order_is_not_found(server: RunningOrders) -> None:
    placed = await server.place()
    for call in (
        server.stub.GetOrder(pb.GetOrderRequest(order_id=placed.id), metadata=AS_BOB),
        server.stub.CancelOrder(pb.CancelOrderRequest(order_id=placed.id), metadata=AS_BOB),
        _drained(server.stub.WatchOrder(pb.WatchOrderRequest(order_id=placed.id), metadata=AS_BOB)),
    ):
        error = await refused(call)
        assert (error.code, error.reason) == (Code.NOT_FOUND, "ORDER_NOT_FOUND")


async def _drained(stream: Any) -> list[pb.Order]:
    return [answer.order async for answer in stream]


async def test_no_call_works_without_a_token(server: RunningOrders) -> None:
    for call in (
        server.stub.GetOrder(pb.GetOrderRequest()),
        server.stub.ListOrders(pb.ListOrdersRequest()),
        server.stub.GetPaymentInstruction(pb.GetPaymentInstructionRequest()),
        _drained(server.stub.WatchOrder(pb.WatchOrderRequest())),
    ):
        assert (await refused(call)).code is Code.UNAUTHENTICATED


async def test_orders_are_listed_page_by_page_and_by_status(server: RunningOrders) -> None:
    first, second = await server.place(), await server.place()
    await server.stub.CancelOrder(pb.CancelOrderRequest(order_id=first.id), metadata=AS_ADA)
    page = await server.stub.ListOrders(pb.ListOrdersRequest(limit=1), metadata=AS_ADA)
    rest = await server.stub.ListOrders(pb.ListOrdersRequest(limit=1, cursor=page.next_cursor), metadata=AS_ADA)
    assert [order.id for order in [*page.orders, *rest.orders]] == [second.id, first.id]
    assert rest.next_cursor == ""
    request = pb.ListOrdersRequest(all=True, status=pb.ORDER_STATUS_CANCELLED)
    cancelled = await server.stub.ListOrders(request, metadata=AS_ADMINISTRATOR)
    assert [order.cancel_reason for order in cancelled.orders] == ["CUSTOMER_REQUEST"]


async def test_a_status_that_does_not_exist_is_refused(server: RunningOrders) -> None:
    request = pb.ListOrdersRequest(status=99)  # type: ignore[arg-type] # proto3 enums are open
    error = await refused(server.stub.ListOrders(request, metadata=AS_ADA))
    assert [violation.field for violation in error.violations] == ["status"]


async def test_payments_is_told_what_to_charge_until_the_order_is_paid(server: RunningOrders) -> None:
    placed = await server.place()
    request = pb.GetPaymentInstructionRequest(order_id=placed.id)
    before = (await server.stub.GetPaymentInstruction(request, metadata=AS_PAYMENTS)).payment_instruction
    assert (before.payable, before.payment_token, before.amount.amount) == (True, "tok_ok", 5_000)
    order = await server.read(placed.id)
    await server.receive(captured(order))
    after = (await server.stub.GetPaymentInstruction(request, metadata=AS_PAYMENTS)).payment_instruction
    assert (after.payable, after.payment_token) == (False, "")
    for other in (AS_ADA, AS_ADMINISTRATOR, bearer("service:products")):
        error = await refused(server.stub.GetPaymentInstruction(request, metadata=other))
        assert error.code is Code.PERMISSION_DENIED


async def test_a_watched_order_is_followed_to_its_end(server: RunningOrders) -> None:
    placed = await server.place()
    stream = server.stub.WatchOrder(pb.WatchOrderRequest(order_id=placed.id), metadata=AS_ADA, timeout=SOON)
    seen = []
    async for answer in stream:
        seen.append(answer.order.status)
        if answer.order.status == pb.ORDER_STATUS_PLACED:
            stored = await server.read(placed.id)
            assert await server.receive(rejected(stored)) == 204
    assert seen == [pb.ORDER_STATUS_PLACED, pb.ORDER_STATUS_CANCELLED]
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_watch_ends_with_its_deadline_and_leaves_nothing_behind(server: RunningOrders) -> None:
    placed = await server.place()
    request = pb.WatchOrderRequest(order_id=placed.id)
    error = await refused(_drained(server.stub.WatchOrder(request, metadata=AS_ADA, timeout=0.2)))
    assert error.code is Code.DEADLINE_EXCEEDED
    stream = server.stub.WatchOrder(request, metadata=AS_ADA)
    await stream.read()
    stream.cancel()
    servicer: Any = server.runner.function.services()[0].servicer
    async with asyncio.timeout(SOON):
        while servicer.service._watchers._by_order:  # noqa: ASYNC110 - polls what has no event to wait for
            await asyncio.sleep(0.01)


async def test_an_event_that_cannot_be_is_refused_for_good(server: RunningOrders) -> None:
    placed = await server.place()
    order = await server.read(placed.id)
    order.id = "ord_" + "f" * 32
    assert await server.receive(reserved(order)) == 422


async def test_a_hundred_orders_of_fifty_lines_with_long_names_are_listed_page_by_page(
    server: RunningOrders,
) -> None:
    placed = await server.read((await server.place()).id)
    lines = [replace(placed.lines[0], name="\U0001f375" * 200)] * 50
    for number in range(100):
        large = replace(placed, id=f"ord_{number:032x}", lines=lines, version=0)
        await server.runner.function.store.update(Order, large.id, partial(_exactly, large))

    found: list[str] = []
    cursor, pages = "", 0
    while pages == 0 or cursor:
        request = pb.ListOrdersRequest(limit=100, cursor=cursor)
        page = await server.stub.ListOrders(request, metadata=AS_ADA, timeout=SOON)
        found += [order.id for order in page.orders]
        cursor, pages = page.next_cursor, pages + 1

    assert len(set(found)) == len(found) == 101
    assert pages > 4


def _exactly(order: Order, _: Order | None) -> tuple[Order, tuple[()]]:
    return order, ()
