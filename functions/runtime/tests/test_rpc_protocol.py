"""What a gRPC client can do without a message, and what the standard services and the trailing metadata say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from functions.runtime.app import RpcService
from functions.runtime.errors import Code
from functions.runtime.rpc.errors import from_rpc_error
from functions.runtime.rpc.pending_calls import PendingCalls, address
from functions.runtime.rpc.server import RpcServer
from functions.runtime.tests.support import FakeVerifier, bearer
from functions.runtime.tests.test_rpc import ACCESS, Orders
from proto.shop.orders.v1 import orders_pb2 as pb
from proto.shop.orders.v1 import orders_pb2_grpc

SERVICE = "shop.orders.v1.OrdersService"
HEALTH = "grpc.health.v1.Health"
MANY = 60
AS_SOMEBODY = bearer("user:usr_1")


@asynccontextmanager
async def served(pending: PendingCalls) -> AsyncIterator[grpc.aio.Channel]:
    servicer = Orders()  # type: ignore[abstract]  # a fake has what is called
    service = RpcService(orders_pb2_grpc.add_OrdersServiceServicer_to_server, servicer, SERVICE, ACCESS)
    server = RpcServer("orders", [service], FakeVerifier(), reflection=True, pending=pending)
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


def half_open(channel: grpc.aio.Channel, path: str = f"/{SERVICE}/GetOrder") -> Any:
    """A call that has sent its HEADERS and sends no message."""
    opened: Any = channel.stream_unary(path)
    return opened(metadata=AS_SOMEBODY)


async def get(channel: grpc.aio.Channel) -> Any:
    stub: Any = orders_pb2_grpc.OrdersServiceStub(channel)
    return await stub.GetOrder(pb.GetOrderRequest(order_id="ord_1"), metadata=AS_SOMEBODY, timeout=10)


@pytest.mark.parametrize("path", [f"/{SERVICE}/GetOrder", f"/{SERVICE}/WatchOrder", f"/{HEALTH}/Check"])
async def test_a_call_whose_message_does_not_come_is_ended(path: str) -> None:
    async with served(PendingCalls(seconds=0.1)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await half_open(channel, path)
        error = from_rpc_error(caught.value)
        assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "MESSAGE_MISSING")


async def test_a_call_that_ends_without_a_message_is_refused_at_once() -> None:
    async with served(PendingCalls(seconds=60)) as channel:
        call = half_open(channel)
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert from_rpc_error(caught.value).reason == "MESSAGE_MISSING"


async def test_calls_without_a_message_displace_each_other_and_nobody_else() -> None:
    async with served(PendingCalls(limit=5, seconds=60)) as channel:
        opened = [half_open(channel) for _ in range(MANY)]
        reasons = [asyncio.ensure_future(reason(call)) for call in opened]
        for _ in range(10):
            assert (await get(channel)).order.id == "ord_1"
        while sum(task.done() for task in reasons) < MANY - 5:
            waiting = [task for task in reasons if not task.done()]
            done, _ = await asyncio.wait(waiting, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            assert done, f"{len(waiting)} calls are still open"
        assert {task.result() for task in reasons if task.done()} == {"TOO_MANY_CALLS"}
        for call in opened:
            call.cancel()
        await asyncio.gather(*reasons, return_exceptions=True)


async def reason(call: Any) -> str:
    """Why the call was refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value).reason


async def test_a_call_with_a_slow_message_is_answered() -> None:
    async with served(PendingCalls(limit=5, seconds=60)) as channel:
        slow = half_open(channel)
        assert (await get(channel)).order.id == "ord_1"
        await slow.write(pb.GetOrderRequest(order_id="ord_2").SerializeToString())
        await slow.done_writing()
        assert pb.GetOrderResponse.FromString(await slow).order.id == "ord_2"


@pytest.mark.parametrize(
    ("peer", "expected"),
    [("ipv4:192.0.2.1:5000", "ipv4:192.0.2.1"), ("ipv6:%5B2001:db8::1%5D:5000", "ipv6:%5B2001:db8::1%5D")],
)
def test_a_peer_is_an_address_whatever_its_port(peer: str, expected: str) -> None:
    assert address(peer) == expected


async def test_trailing_metadata_tells_the_correlation_id_of_answers_and_errors() -> None:
    async with served(PendingCalls()) as channel:
        sent = (*AS_SOMEBODY, ("x-correlation-id", "correlation-1234"))
        stub: Any = orders_pb2_grpc.OrdersServiceStub(channel)
        answered = stub.GetOrder(pb.GetOrderRequest(), metadata=sent)
        await answered
        failed = stub.WatchOrder(pb.WatchOrderRequest(), metadata=sent)
        with pytest.raises(grpc.aio.AioRpcError):
            assert [message async for message in failed]
        refused = stub.GetOrder(pb.GetOrderRequest(), metadata=sent[1:])
        for call in (answered, failed, refused):
            assert dict(await call.trailing_metadata())["x-correlation-id"] == "correlation-1234"
        given = stub.GetOrder(pb.GetOrderRequest(), metadata=AS_SOMEBODY)
        assert len(dict(await given.trailing_metadata())["x-correlation-id"]) > 8
        assert await refused.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_health_lists_every_service() -> None:
    async with served(PendingCalls()) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthListRequest()  # type: ignore[attr-defined] # the stubs are older
        listed = await stub.List(request)
        serving = health_pb2.HealthCheckResponse.SERVING
        assert {name: status.status for name, status in listed.statuses.items()} == {
            "": serving,
            SERVICE: serving,
        }


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_and_describes_all_services(version: str) -> None:
    name = f"grpc.reflection.{version}.ServerReflection"
    async with served(PendingCalls()) as channel:
        ask: Any = channel.stream_stream(
            f"/{name}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        services = {
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            SERVICE,
        }
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            *(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in services),
        ]
        answers = [answer async for answer in ask(iter(requests))]
    assert {service.name for service in answers[0].list_services_response.service} == services
    described = {
        f"{file.package}.{service.name}"
        for answer in answers[1:]
        for file in map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
        for service in file.service
    }
    assert described == services
