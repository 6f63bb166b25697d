"""Calls to other services: the catalogue's prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from events.catalog import Money
from functions.orders.pricing import Offer
from functions.runtime.grpc_client import GrpcClient


class Catalogue(Protocol):
    """The products for sale and their prices."""

    async def offers(self, product_ids: Sequence[str]) -> dict[str, Offer]:
        """Return up to 100 products by id. Inactive products are included; unknown ids are omitted.

        Raises:
            Unavailable: the catalogue cannot be reached.
        """

    async def on_hand(self, product_ids: Sequence[str]) -> dict[str, int]:
        """Return how many pieces of these products are in stock, reserved ones included. Raises as `offers`."""


class ProductsCatalogue:
    """The products service's catalogue, over gRPC."""

    def __init__(self, products: GrpcClient) -> None:
        self._products = products

    async def offers(self, product_ids: Sequence[str]) -> dict[str, Offer]:
        """Return the products in one call (see Catalogue). It uses the service's own token, and is safe to retry."""
        from proto.shop.products.v1 import products_pb2 as pb  # ROLE=events must not import gRPC
        from proto.shop.products.v1 import products_pb2_grpc

        stub = self._products.stub(products_pb2_grpc.ProductsServiceStub)
        request = pb.BatchGetProductsRequest(product_ids=product_ids)
        response = await self._products.call(stub.BatchGetProducts, request, as_service=True, retry=True)
        return {
            product.id: Offer(
                product.id,
                product.sku,
                product.name,
                Money(product.price.amount, product.price.currency),
                product.active,
            )
            for product in response.products
        }

    async def on_hand(self, product_ids: Sequence[str]) -> dict[str, int]:
        """Return the stock of the products (see Catalogue)."""
        from proto.shop.products.v1 import products_pb2 as pb  # see `offers`
        from proto.shop.products.v1 import products_pb2_grpc

        stub = self._products.stub(products_pb2_grpc.ProductsServiceStub)
        request = pb.BatchGetProductsRequest(product_ids=product_ids, with_stock=True)
        response = await self._products.call(stub.BatchGetProducts, request, as_service=True, retry=True)
        return {stock.product_id: stock.on_hand for stock in response.stocks}
