"""What orders asks of other services: the catalogue's prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from events.catalog import Money
from functions.orders.checkout import Offer
from functions.runtime.grpc_client import GrpcClient

if TYPE_CHECKING:
    from proto.shop.products.v1 import products_pb2 as pb


class Catalogue(Protocol):
    """What is for sale, and at what price."""

    async def offers(self, product_ids: Sequence[str]) -> dict[str, Offer]:
        """Up to 100 products by id, inactive ones included, unknown ones left out. Raises UNAVAILABLE."""


class ProductsCatalogue:
    """The products service's catalogue, over gRPC."""

    def __init__(self, products: GrpcClient) -> None:
        self._products = products

    async def offers(self, product_ids: Sequence[str]) -> dict[str, Offer]:
        """See Catalogue. One call for all, with the service's own token; reading may be repeated."""
        from proto.shop.products.v1 import products_pb2 as pb  # gRPC only where it is spoken
        from proto.shop.products.v1 import products_pb2_grpc

        stub = self._products.stub(products_pb2_grpc.ProductsServiceStub)
        request = pb.BatchGetProductsRequest(product_ids=product_ids)
        answer = await self._products.call(stub.BatchGetProducts, request, as_service=True, retry=True)
        return {product.id: _offer(product) for product in answer.products}


def _offer(product: pb.Product) -> Offer:
    price = Money(product.price.amount, product.price.currency)
    return Offer(product.id, product.sku, product.name, price, product.active)
