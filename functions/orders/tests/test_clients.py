"""The client of products, over a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from events.catalog import Money
from events.service_keys import PrivateKey, ServiceKeys
from functions.orders.clients import ProductsCatalogue
from functions.orders.pricing import Offer
from functions.orders.tests.shop import RETIRED, TEAPOT, UNKNOWN
from functions.runtime.clock import SystemClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.grpc_client import GrpcClient
from functions.runtime.key_set import Fetched, KeySetCache
from functions.runtime.tokens import JwtVerifier, ServiceTokens
from proto.shop.money.v1 import money_pb2
from proto.shop.products.v1 import products_pb2 as pb

KEY = PrivateKey.generate("orders")
TOKENS = ServiceTokens(KEY, "issuer", SystemClock())


class Products:
    """A server with two products that keeps the requested ids and the token."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.token = ""
        self.failures = 0

    async def batch_get(self, request: pb.BatchGetProductsRequest, context: Any) -> pb.BatchGetProductsResponse:
        self.asked.append(list(request.product_ids))
        self.token = dict(context.invocation_metadata())["authorization"].removeprefix("Bearer ")
        if self.failures:
            self.failures -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "passing")
        price = money_pb2.Money(amount=2_500, currency="EUR")
        known = [
            pb.Product(id=TEAPOT, sku="TEA-1", name="Teapot", price=price, active=True),
            pb.Product(id=RETIRED, sku="OLD-1", name="Old thing", price=price, active=False),
        ]
        return pb.BatchGetProductsResponse(products=[p for p in known if p.id in request.product_ids])

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler of the one method that orders calls."""
        method = grpc.unary_unary_rpc_method_handler(
            self.batch_get,
            request_deserializer=pb.BatchGetProductsRequest.FromString,
            response_serializer=pb.BatchGetProductsResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler("shop.products.v1.ProductsService", {"BatchGetProducts": method})


@pytest.fixture
async def served() -> AsyncIterator[tuple[Products, ProductsCatalogue]]:
    server, products = grpc.aio.server(), Products()
    server.add_generic_rpc_handlers([products.handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = GrpcClient(f"127.0.0.1:{port}", TOKENS, "products")
    yield products, ProductsCatalogue(client)
    await client.close()
    await server.stop(0)


async def test_all_prices_come_by_one_call(served: tuple[Products, ProductsCatalogue]) -> None:
    products, catalogue = served
    offers = await catalogue.offers([TEAPOT, RETIRED, UNKNOWN])
    assert products.asked == [[TEAPOT, RETIRED, UNKNOWN]]
    assert offers == {
        TEAPOT: Offer(TEAPOT, "TEA-1", "Teapot", Money(2_500, "EUR"), active=True),
        RETIRED: Offer(RETIRED, "OLD-1", "Old thing", Money(2_500, "EUR"), active=False),
    }


async def test_the_call_is_made_in_the_services_own_name(served: tuple[Products, ProductsCatalogue]) -> None:
    products, catalogue = served
    await catalogue.offers([TEAPOT])
    services, keys = ServiceKeys({}).with_key("orders", KEY.public), KeySetCache(_no_keys, SystemClock())
    verifier = JwtVerifier(keys, services, "issuer", "shop", SystemClock(), "products")
    caller = await verifier.verify(products.token)
    assert caller.is_service_named("orders")


async def _no_keys(since: float | None, cursor: str) -> Fetched:
    return Fetched('{"keys": []}')


async def test_a_passing_fault_is_tried_again(served: tuple[Products, ProductsCatalogue]) -> None:
    products, catalogue = served
    products.failures = 1
    assert TEAPOT in await catalogue.offers([TEAPOT])
    assert len(products.asked) == 2


async def test_a_catalogue_that_cannot_be_reached_is_a_passing_fault() -> None:
    client = GrpcClient("127.0.0.1:1", TOKENS)
    with pytest.raises(ServiceError) as caught:
        await ProductsCatalogue(client).offers([TEAPOT])
    assert caught.value.code is Code.UNAVAILABLE
    await client.close()
