"""Who opens calls and sends nothing, or watches without end, keeps nobody else out."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from functions.runtime.tests.support import bearer
from proto.shop.orders.v1 import orders_pb2, orders_pb2_grpc
from proto.shop.users.v1 import users_pb2, users_pb2_grpc
from tests.e2e.platform import LocalPlatform
from tests.security.callers import Callers

CONNECTIONS, EACH = 3, 800
"""More than the 2,000 calls that a service answers at once."""


async def test_calls_without_a_message_keep_nobody_from_logging_in(callers: Callers, local: LocalPlatform) -> None:
    address = callers.grpc_address("users")
    # Connections of their own: channels to one address share theirs.
    own = [("grpc.use_local_subchannel_pool", 1)]
    attackers = [grpc.aio.insecure_channel(address, options=own) for _ in range(CONNECTIONS)]
    opened: list[Any] = []
    for channel in attackers:
        login: Any = channel.stream_unary("/shop.users.v1.UsersService/Login")
        opened += [login() for _ in range(EACH)]
    try:
        await asyncio.gather(*(channel.channel_ready() for channel in attackers))
        async with grpc.aio.insecure_channel(address, options=own) as channel:
            stub: Any = users_pb2_grpc.UsersServiceStub(channel)
            for _ in range(20):
                keys = await stub.GetJwks(users_pb2.GetJwksRequest(), timeout=20)
                assert keys.jwks.json
                await asyncio.sleep(0.1)  # the attack goes on meanwhile
        ended = await asyncio.wait_for(asyncio.gather(*opened, return_exceptions=True), 60)
        assert {type(error) for error in ended} == {grpc.aio.AioRpcError}
    finally:
        for call in opened:
            call.cancel()
        await asyncio.gather(*(channel.close() for channel in attackers))


async def test_one_customers_streams_leave_room_for_anothers(callers: Callers, local: LocalPlatform) -> None:
    watched = orders_pb2.WatchOrderRequest(order_id=callers.ids["order_id"])
    async with grpc.aio.insecure_channel(callers.grpc_address("orders")) as channel:
        stub: Any = orders_pb2_grpc.OrdersServiceStub(channel)
        streams = [stub.WatchOrder(watched, metadata=bearer(callers.token("customer"))) for _ in range(100)]
        first = await asyncio.gather(*(stream.read() for stream in streams), return_exceptions=True)
        refused = [each for each in first if isinstance(each, grpc.aio.AioRpcError)]
        assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(refused) >= 80
        admin = stub.WatchOrder(watched, metadata=bearer(callers.token("admin")), timeout=20)
        assert (await admin.read()).order.id == callers.ids["order_id"]
        for stream in (*streams, admin):
            stream.cancel()
