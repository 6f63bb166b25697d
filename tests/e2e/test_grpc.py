"""The same platform for gRPC clients: each domain's own server, or behind an ingress the one host of them all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any
from uuid import uuid4

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from knative.local.demo.shop import ADDRESS, Person, Shop
from proto.shop.orders.v1 import orders_pb2, orders_pb2_grpc
from proto.shop.products.v1 import products_pb2, products_pb2_grpc
from proto.shop.users.v1 import users_pb2, users_pb2_grpc
from tests.e2e.conftest import MakeProduct
from tests.e2e.platform import GrpcIngress, LocalPlatform, Platform, grpc_ingress

PASSWORD = "correct horse battery staple"


class Stubs:
    """Stubs of the domains, with the metadata of whoever calls."""

    def __init__(self, channels: dict[str, grpc.aio.Channel]) -> None:
        self.channels = channels
        self.users: Any = users_pb2_grpc.UsersServiceStub(channels["users"])
        self.products: Any = products_pb2_grpc.ProductsServiceStub(channels["products"])
        self.orders: Any = orders_pb2_grpc.OrdersServiceStub(channels["orders"])


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def as_(who: Person) -> list[tuple[str, str]]:
    return bearer(who.tokens["access_token"])


async def refusal(call: Awaitable[Any]) -> grpc.StatusCode:
    """The bare status: what an ingress refuses carries no details of the platform's."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code()


@pytest.fixture
def ingress() -> GrpcIngress:
    found = grpc_ingress()
    if found is None:
        pytest.skip("needs an ingress with a host for gRPC clients: set E2E_GRPC_HOST")
    return found


@pytest.fixture
async def stubs(platform: Platform) -> AsyncIterator[Stubs]:
    domains = ("users", "products", "orders")
    ingress = grpc_ingress()
    if ingress is not None:
        channel = ingress.channel()
        channels = dict.fromkeys(domains, channel)
    elif isinstance(platform, LocalPlatform):
        parts = platform.state()["parts"]
        channels = {name: grpc.aio.insecure_channel(parts[name]["grpc"]) for name in domains}
    else:
        pytest.skip("the ingress' host for gRPC clients is not known: set E2E_GRPC_HOST")
    yield Stubs(channels)
    for channel in set(channels.values()):
        await channel.close()


def order_of(product_id: str, token: str = "tok_ok") -> orders_pb2.PlaceOrderRequest:  # noqa: S107 - a test card
    return orders_pb2.PlaceOrderRequest(
        lines=[orders_pb2.LineRequest(product_id=product_id, quantity=2)],
        shipping_address=orders_pb2.ShippingAddress(**ADDRESS),
        payment_token=token,
        idempotency_key=uuid4().hex,
    )


async def test_a_person_registers_logs_in_and_reads_the_catalogue_without_a_token(
    stubs: Stubs, make_product: MakeProduct
) -> None:
    product = await make_product()
    email = f"grpc-{uuid4().hex[:12]}@example.com"
    user = (
        await stubs.users.Register(users_pb2.RegisterRequest(email=email, password=PASSWORD, name="Ada"), timeout=30)
    ).user
    session = (await stubs.users.Login(users_pb2.LoginRequest(email=email, password=PASSWORD), timeout=30)).session
    seen = (
        await stubs.products.GetProduct(products_pb2.GetProductRequest(product_id=product["id"]), timeout=30)
    ).product
    own = (
        await stubs.users.GetUser(
            users_pb2.GetUserRequest(user_id=user.id), metadata=bearer(session.access_token), timeout=30
        )
    ).user
    assert (own.email, seen.sku) == (email, product["sku"])


async def test_an_order_is_placed_and_followed_as_a_stream_until_it_is_confirmed(
    stubs: Stubs, customer: Person, make_product: MakeProduct
) -> None:
    product = await make_product()
    placed = (await stubs.orders.PlaceOrder(order_of(product["id"]), metadata=as_(customer), timeout=30)).order
    watch = stubs.orders.WatchOrder(
        orders_pb2.WatchOrderRequest(order_id=placed.id), metadata=as_(customer), timeout=60
    )
    async for seen in watch:
        if seen.order.status == orders_pb2.ORDER_STATUS_CONFIRMED:
            break
    watch.cancel()
    order = (
        await stubs.orders.GetOrder(orders_pb2.GetOrderRequest(order_id=placed.id), metadata=as_(customer), timeout=30)
    ).order
    assert order.status == orders_pb2.ORDER_STATUS_CONFIRMED
    assert order.total.amount == 2 * product["price"]["amount"]


@pytest.mark.parametrize("token", ["", "garbage", "eyJhbGciOiJub25lIn0.e30."])
async def test_what_needs_a_token_is_refused_without_a_valid_one(stubs: Stubs, token: str) -> None:
    metadata = bearer(token) if token else None
    for call in (
        stubs.orders.ListOrders(orders_pb2.ListOrdersRequest(), metadata=metadata, timeout=30),
        stubs.users.ListUsers(users_pb2.ListUsersRequest(), metadata=metadata, timeout=30),
    ):
        assert await refusal(call) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_stream_is_refused_without_a_token(stubs: Stubs) -> None:
    watch = stubs.orders.WatchOrder(orders_pb2.WatchOrderRequest(order_id="ord_x"), timeout=30)
    assert await refusal(watch.read()) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_customer_neither_reads_anothers_order_nor_does_an_administrators_work(
    stubs: Stubs, shop: Shop, customer: Person, make_product: MakeProduct
) -> None:
    product = await make_product()
    placed = (await stubs.orders.PlaceOrder(order_of(product["id"]), metadata=as_(customer), timeout=30)).order
    stranger = as_(await shop.register("Eve"))
    read = stubs.orders.GetOrder(orders_pb2.GetOrderRequest(order_id=placed.id), metadata=stranger, timeout=30)
    stock = products_pb2.SetStockRequest(product_id=product["id"], on_hand=10_000)
    assert await refusal(read) is grpc.StatusCode.NOT_FOUND
    changed = stubs.products.SetStock(stock, metadata=stranger, timeout=30)
    assert await refusal(changed) is grpc.StatusCode.PERMISSION_DENIED


async def test_the_ingress_leads_to_the_platforms_own_methods_only(ingress: GrpcIngress) -> None:
    async with ingress.channel() as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        stub: Any = reflection_pb2_grpc.ServerReflectionStub  # its types know no asyncio
        reflection = stub(channel)
        asked = reflection.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=30
        )
        for call in (health.Check(health_pb2.HealthCheckRequest(), timeout=30), asked.read()):
            assert await refusal(call) is grpc.StatusCode.UNIMPLEMENTED
