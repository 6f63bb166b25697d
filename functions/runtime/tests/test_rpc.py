"""The gRPC server and a client that calls it."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from functions.runtime import identity
from functions.runtime.app import RpcService
from functions.runtime.errors import Code, ServiceError, Violation, invalid, unauthenticated, unavailable
from functions.runtime.grpc_client import GrpcClient, enter_deadline
from functions.runtime.identity import ADMINS, ANYBODY, SIGNED_IN, Access, UndeclaredRpc, services
from functions.runtime.rpc.server import RpcServer
from functions.runtime.tests.support import FakeVerifier, bearer
from observability import context, logs
from proto.shop.orders.v1 import orders_pb2 as pb
from proto.shop.orders.v1 import orders_pb2_grpc

ACCESS = {method.name: SIGNED_IN for method in pb.DESCRIPTOR.services_by_name["OrdersService"].methods}
FULL = ServiceError(
    Code.RESOURCE_EXHAUSTED, "TOO_MANY", "Too many of them.", [Violation("lines[0]", "is one too many")], 2.5
)


class Orders(orders_pb2_grpc.OrdersServiceServicer):
    """Answers by what it is told to raise, and remembers what it saw."""

    def __init__(self) -> None:
        self.raises: list[Exception] = []
        self.answers: list[pb.GetOrderResponse] = []
        self.seen: list[tuple[context.Context, identity.Identity]] = []
        self.broken_off = asyncio.Event()

    async def GetOrder(self, request: pb.GetOrderRequest, context_: Any) -> pb.GetOrderResponse:
        self.seen.append((context.current(), identity.current_caller()))
        if self.raises:
            raise self.raises.pop(0)
        if self.answers:
            return self.answers.pop(0)
        return pb.GetOrderResponse(order=pb.Order(id=request.order_id))

    async def ListOrders(self, request: pb.ListOrdersRequest, context_: Any) -> pb.ListOrdersResponse:
        self.seen.append((context.current(), identity.current_caller()))
        return pb.ListOrdersResponse()

    async def PlaceOrder(self, request: pb.PlaceOrderRequest, context_: Any) -> pb.PlaceOrderResponse:
        try:
            await asyncio.Event().wait()
        finally:
            self.broken_off.set()
        raise AssertionError

    async def WatchOrder(self, request: pb.WatchOrderRequest, context_: Any) -> AsyncIterator[pb.WatchOrderResponse]:
        yield pb.WatchOrderResponse(order=pb.Order(id=request.order_id))
        if request.order_id == "ord_open":
            try:
                await asyncio.Event().wait()
            finally:
                self.broken_off.set()
        raise invalid("Enough.", reason="ENOUGH")


class Revocable(FakeVerifier):
    """Refuses what was revoked."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    async def verify(self, token: str) -> identity.Identity:
        if token in self.revoked:
            raise unauthenticated("TOKEN_EXPIRED", "The access token has expired.")
        return await super().verify(token)


class OrdersServer:
    """A server with one fake service, and a peer that calls it."""

    def __init__(self, servicer: Orders, port: int, verifier: Revocable) -> None:
        self.servicer = servicer
        self.verifier = verifier
        self.peer = GrpcClient(f"127.0.0.1:{port}")
        self.stub = orders_pb2_grpc.OrdersServiceStub(self.peer.channel)

    async def get(self, **how: Any) -> pb.Order:
        identity.enter(identity.Identity("usr_1", frozenset({"customer"}), "user:usr_1"))
        answer = (await self.peer.call(self.stub.GetOrder, pb.GetOrderRequest(order_id="ord_1"), **how)).order
        assert isinstance(answer, pb.Order)
        return answer


@pytest.fixture
async def orders_server() -> AsyncIterator[OrdersServer]:
    servicer = Orders()  # type: ignore[abstract]  # a fake has what is called
    service = RpcService(
        orders_pb2_grpc.add_OrdersServiceServicer_to_server,
        servicer,
        "shop.orders.v1.OrdersService",
        {**ACCESS, "ListOrders": ANYBODY},
    )
    verifier = Revocable()
    server = RpcServer("orders", [service], verifier, reflection=True, stream_check=0.01)
    orders_server = OrdersServer(servicer, await server.start("127.0.0.1:0"), verifier)
    yield orders_server
    await orders_server.peer.close()
    await server.stop(0)


async def test_the_correlation_id_the_trace_and_the_caller_cross_the_hop(orders_server: OrdersServer) -> None:
    sent = context.incoming("correlation-1234", None)
    with context.use(sent):
        await orders_server.get()

    received, caller = orders_server.servicer.seen[0]
    assert (received.correlation_id, received.trace_id) == ("correlation-1234", sent.trace_id)
    assert (caller.subject, caller.roles) == ("usr_1", frozenset({"customer"}))


@pytest.mark.parametrize("unfit", ["caf\xe9=1", "a=1,\tb=2", "\x85", "a" * 513])
async def test_a_tracestate_that_metadata_cannot_hold_goes_no_further(orders_server: OrdersServer, unfit: str) -> None:
    sent = context.incoming("correlation-1234", context.new_traceparent(), unfit)
    with context.use(sent):
        await orders_server.get()

    received, _ = orders_server.servicer.seen[0]
    assert (received.trace_id, received.tracestate) == (sent.trace_id, "")


async def test_an_error_arrives_as_it_was_raised(orders_server: OrdersServer) -> None:
    orders_server.servicer.raises = [FULL]
    with pytest.raises(ServiceError) as caught:
        await orders_server.get()

    error = caught.value
    assert (error.code, error.reason, error.message) == (FULL.code, FULL.reason, FULL.message)
    assert (error.violations, error.retry_after) == (FULL.violations, 2.5)


async def test_a_bug_says_nothing_of_the_inside(orders_server: OrdersServer) -> None:
    orders_server.servicer.raises = [KeyError("secret column")]
    with pytest.raises(ServiceError) as caught:
        await orders_server.get()

    assert caught.value.code is Code.INTERNAL
    assert "secret" not in str(caught.value)


async def test_a_call_without_a_token_is_refused_unless_the_method_is_public(
    orders_server: OrdersServer,
) -> None:
    with pytest.raises(ServiceError) as caught:
        await orders_server.peer.call(orders_server.stub.GetOrder, pb.GetOrderRequest())
    await orders_server.peer.call(orders_server.stub.ListOrders, pb.ListOrdersRequest())

    assert caught.value.reason == "TOKEN_MISSING"
    assert orders_server.servicer.seen[0][1] is identity.ANONYMOUS


async def test_a_garbage_token_is_refused_where_one_is_needed_and_proves_nothing_elsewhere(
    orders_server: OrdersServer,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await orders_server.stub.GetOrder(pb.GetOrderRequest(), metadata=bearer("garbage"))
    await orders_server.stub.ListOrders(pb.ListOrdersRequest(), metadata=bearer("garbage"))

    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert orders_server.servicer.seen[0][1] is identity.ANONYMOUS


async def test_an_idempotent_call_is_repeated_after_a_passing_fault(orders_server: OrdersServer) -> None:
    orders_server.servicer.raises = [unavailable("A", "a"), unavailable("B", "b")]

    assert (await orders_server.get(retry=True)).id == "ord_1"


async def test_any_other_call_is_made_once(orders_server: OrdersServer) -> None:
    orders_server.servicer.raises = [unavailable("A", "a")]
    with pytest.raises(ServiceError):
        await orders_server.get()

    assert len(orders_server.servicer.seen) == 1


async def test_a_call_ends_at_its_deadline(orders_server: OrdersServer) -> None:
    identity.enter(identity.Identity("usr_1", frozenset(), "user:usr_1"))
    with pytest.raises(ServiceError) as caught:
        await orders_server.peer.call(orders_server.stub.PlaceOrder, pb.PlaceOrderRequest(), timeout=0.05)

    assert caught.value.code is Code.DEADLINE_EXCEEDED


async def test_a_handler_does_not_go_on_past_its_caller_s_deadline(orders_server: OrdersServer) -> None:
    identity.enter(identity.Identity("usr_1", frozenset(), "user:usr_1"))
    with pytest.raises(ServiceError):
        await orders_server.peer.call(orders_server.stub.PlaceOrder, pb.PlaceOrderRequest(), timeout=0.05)

    async with asyncio.timeout(10):
        await orders_server.servicer.broken_off.wait()


async def test_a_call_has_what_is_left_to_its_caller_and_no_more(orders_server: OrdersServer) -> None:
    identity.enter(identity.Identity("usr_1", frozenset(), "user:usr_1"))
    enter_deadline(0.05)
    async with asyncio.timeout(4):  # less than a call has of its own
        with pytest.raises(ServiceError) as caught:
            await orders_server.peer.call(orders_server.stub.PlaceOrder, pb.PlaceOrderRequest())

    assert caught.value.code is Code.DEADLINE_EXCEEDED


async def test_a_peer_that_is_not_there_is_unavailable() -> None:
    peer = GrpcClient("127.0.0.1:1")
    stub = orders_pb2_grpc.OrdersServiceStub(peer.channel)
    with pytest.raises(ServiceError) as caught:
        await peer.call(stub.GetOrder, pb.GetOrderRequest(), retry=True, timeout=0.3)
    await peer.close()

    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "SERVICE_UNAVAILABLE")


async def test_a_peer_that_comes_late_is_waited_for() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    peer = GrpcClient(f"127.0.0.1:{port}")
    stub = orders_pb2_grpc.OrdersServiceStub(peer.channel)
    call = asyncio.create_task(peer.call(stub.ListOrders, pb.ListOrdersRequest()))
    while (state := peer.channel.get_state()) is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
        await peer.channel.wait_for_state_change(state)
    service = RpcService(
        orders_pb2_grpc.add_OrdersServiceServicer_to_server,
        Orders(),  # type: ignore[abstract]  # a fake has what is called
        "shop.orders.v1.OrdersService",
        {**ACCESS, "ListOrders": ANYBODY},
    )
    server = RpcServer("orders", [service], FakeVerifier(), reflection=False)
    await server.start(f"127.0.0.1:{port}")

    assert await call == pb.ListOrdersResponse()
    await peer.close()
    await server.stop(0)


async def test_a_stream_that_fails_says_why(orders_server: OrdersServer) -> None:
    stream = orders_server.stub.WatchOrder(pb.WatchOrderRequest(order_id="ord_1"), metadata=bearer("user:usr_1"))
    first: Any = await stream.read()
    assert first.order.id == "ord_1"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_standard_health_service_answers_for_every_service(orders_server: OrdersServer) -> None:
    stub: Any = health_pb2_grpc.HealthStub(orders_server.peer.channel)  # the stubs package leaves the methods out
    for name in ("", "shop.orders.v1.OrdersService"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_every_call_leaves_one_json_line_with_its_ids(
    orders_server: OrdersServer, capsys: pytest.CaptureFixture[str]
) -> None:
    before = logging.getLogger().handlers[:]
    logs.configure("orders")
    try:
        orders_server.servicer.raises = [FULL]
        with context.use(context.incoming("correlation-1234", None)), pytest.raises(ServiceError):
            await orders_server.get()
    finally:
        logging.getLogger().handlers[:] = before

    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["event"] == "rpc"
    assert line["correlation_id"] == "correlation-1234"
    assert (line["service"], line["method"]) == ("orders", "shop.orders.v1.OrdersService/GetOrder")
    assert (line["code"], line["reason"]) == ("RESOURCE_EXHAUSTED", "TOO_MANY")


async def test_a_restart_under_load_fails_no_call_that_may_be_made_only_once() -> None:
    servicer = Orders()  # type: ignore[abstract]  # as above
    service = RpcService(
        orders_pb2_grpc.add_OrdersServiceServicer_to_server,
        servicer,
        "shop.orders.v1.OrdersService",
        {**ACCESS, "ListOrders": ANYBODY},
    )

    async def served(port: int) -> tuple[RpcServer, int]:
        server = RpcServer("orders", [service], FakeVerifier(), reflection=False)
        return server, await server.start(f"127.0.0.1:{port}")

    server, port = await served(0)
    peer, made, stop = GrpcClient(f"127.0.0.1:{port}"), 0, asyncio.Event()
    stub = orders_pb2_grpc.OrdersServiceStub(peer.channel)

    async def call_on() -> None:
        nonlocal made
        while not stop.is_set():
            await peer.call(stub.ListOrders, pb.ListOrdersRequest(), anonymous=True, timeout=30)
            made += 1

    callers = [asyncio.create_task(call_on()) for _ in range(20)]
    for _ in range(3):
        before = made
        while made < before + 50 and not any(current_caller.done() for current_caller in callers):  # noqa: ASYNC110 - a count
            await asyncio.sleep(0.01)
        await server.stop(5.0)
        server, _ = await served(port)
    stop.set()
    await asyncio.gather(*callers)
    await peer.close()
    await server.stop(0)
    assert len(servicer.seen) == made


async def test_a_stream_ends_soon_after_the_token_that_opened_it_is_revoked(
    orders_server: OrdersServer,
) -> None:
    wanted = pb.WatchOrderRequest(order_id="ord_open")
    mine = orders_server.stub.WatchOrder(wanted, metadata=bearer("user:usr_1"))
    others = orders_server.stub.WatchOrder(wanted, metadata=bearer("user:usr_2"))
    for watch in (mine, others):
        assert await watch.read() == pb.WatchOrderResponse(order=pb.Order(id="ord_open"))
    orders_server.verifier.revoked.add("user:usr_1")

    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await mine.read()

    assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await orders_server.servicer.broken_off.wait()
    assert not others.done()
    others.cancel()


async def test_an_answer_beyond_the_limit_is_our_fault_and_no_excess_of_the_callers(
    orders_server: OrdersServer,
) -> None:
    orders_server.servicer.answers = [pb.GetOrderResponse(order=pb.Order(id="x" * 5 * 2**20))]
    with pytest.raises(ServiceError) as caught:
        await orders_server.get()
    assert caught.value.code is Code.INTERNAL


async def test_a_request_beyond_the_limit_is_the_callers_fault_and_not_for_later(
    orders_server: OrdersServer,
) -> None:
    with pytest.raises(ServiceError) as caught:
        await orders_server.peer.call(
            orders_server.stub.GetOrder, pb.GetOrderRequest(order_id="x" * 2 * 2**20), anonymous=True
        )
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE")


@pytest.mark.parametrize("change", [{"missing": "GetOrder"}, {"unheard-of": "GetOrders"}])
async def test_a_service_whose_rpcs_do_not_all_say_who_may_call_does_not_start(
    change: dict[str, str],
) -> None:
    access = {**ACCESS, **({change["unheard-of"]: ANYBODY} if "unheard-of" in change else {})}
    access.pop(change.get("missing", ""), None)
    service = RpcService(
        orders_pb2_grpc.add_OrdersServiceServicer_to_server,
        Orders(),  # type: ignore[abstract]  # as above
        "shop.orders.v1.OrdersService",
        access,
    )
    with pytest.raises(UndeclaredRpc, match=next(iter(change.values()))):
        RpcServer("orders", [service], FakeVerifier(), reflection=False)


@pytest.mark.parametrize(
    ("access", "let_in"),
    [
        (Access(), set()),
        (ANYBODY, {"", "user:usr_1", "admin:usr_2", "service:payments", "service:products"}),
        (SIGNED_IN, {"user:usr_1", "admin:usr_2"}),
        (ADMINS, {"admin:usr_2"}),
        (services("payments"), {"service:payments"}),
    ],
)
async def test_who_is_not_declared_reaches_no_method(access: Access, let_in: set[str]) -> None:
    servicer = Orders()  # type: ignore[abstract]  # as above
    service = RpcService(
        orders_pb2_grpc.add_OrdersServiceServicer_to_server,
        servicer,
        "shop.orders.v1.OrdersService",
        {**ACCESS, "GetOrder": access},
    )
    server = RpcServer("orders", [service], FakeVerifier(), reflection=False)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await server.start('127.0.0.1:0')}") as channel:
        stub: Any = orders_pb2_grpc.OrdersServiceStub(channel)
        for token in ("", "user:usr_1", "admin:usr_2", "service:payments", "service:products"):
            before = len(servicer.seen)
            code = grpc.StatusCode.OK
            try:
                await stub.GetOrder(pb.GetOrderRequest(), metadata=bearer(token) if token else None)
            except grpc.aio.AioRpcError as refused:
                code = refused.code()
            reached = len(servicer.seen) > before
            assert reached is (token in let_in), token
            refusal = grpc.StatusCode.PERMISSION_DENIED if token else grpc.StatusCode.UNAUTHENTICATED
            assert code is (grpc.StatusCode.OK if reached else refusal), token
    await server.stop(0)
