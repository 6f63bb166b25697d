"""The gRPC service of products. It converts proto messages to commands, and entities to proto messages."""

from __future__ import annotations

from typing import Any

import grpc.aio

from events.catalog import Money
from functions.products.domain import CreateProduct, Product, UpdateProduct
from functions.products.search.listing import ListProducts
from functions.products.service import ProductsService
from functions.products.stock.domain import Stock, StockAdjustment
from functions.products.stock.service import AdjustStock, ListAdjustments, SetStock, StockService
from functions.runtime.identity import ADMINS, ANYBODY, current_caller
from functions.runtime.messages import optional, timestamp, to_message
from proto.shop.products.v1 import products_pb2 as pb
from proto.shop.products.v1 import products_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


ACCESS = {
    "CreateProduct": ADMINS,
    "GetProduct": ANYBODY,
    "BatchGetProducts": ANYBODY,
    "ListProducts": ANYBODY,
    "UpdateProduct": ADMINS,
    "DeleteProduct": ADMINS,
    "GetStock": ANYBODY,
    "SetStock": ADMINS,
    "AdjustStock": ADMINS,
    "ListStockAdjustments": ADMINS,
    "ListCategories": ANYBODY,
}
"""Who may call each RPC. The use cases check which products the caller may see."""


class ProductsServicer(products_pb2_grpc.ProductsServiceServicer):
    """shop.products.v1.ProductsService."""

    def __init__(self, products: ProductsService, stock: StockService) -> None:
        self.products = products
        self.stock = stock

    async def CreateProduct(self, request: pb.CreateProductRequest, context: Context) -> pb.CreateProductResponse:
        command = CreateProduct(
            sku=request.sku,
            name=request.name,
            description=request.description,
            category=request.category,
            price=optional(request, "price", Money),
            image_urls=list(request.image_urls),
            active=request.active if request.HasField("active") else True,
        )
        product = await self.products.create(command, current_caller())
        return pb.CreateProductResponse(product=_product(product))

    async def GetProduct(self, request: pb.GetProductRequest, context: Context) -> pb.GetProductResponse:
        product = await self.products.get(request.product_id, current_caller())
        return pb.GetProductResponse(product=_product(product))

    async def BatchGetProducts(
        self, request: pb.BatchGetProductsRequest, context: Context
    ) -> pb.BatchGetProductsResponse:
        found = await self.products.get_many(request.product_ids, current_caller())
        stocks = await self.stock.get_many([it.id for it in found]) if request.with_stock else []
        return pb.BatchGetProductsResponse(
            products=[_product(product) for product in found], stocks=[_stock(stock) for stock in stocks]
        )

    async def ListProducts(self, request: pb.ListProductsRequest, context: Context) -> pb.ListProductsResponse:
        query = ListProducts(request.category, request.query, request.limit, request.cursor, request.include_inactive)
        page = await self.products.list_products(query, current_caller())
        products = [_product(product) for product in page.items]
        return pb.ListProductsResponse(products=products, next_cursor=page.next_cursor or "")

    async def UpdateProduct(self, request: pb.UpdateProductRequest, context: Context) -> pb.UpdateProductResponse:
        command = UpdateProduct(
            request.product_id,
            name=optional(request, "name"),
            description=optional(request, "description"),
            category=optional(request, "category"),
            price=optional(request, "price", Money),
            image_urls=list(request.image_urls.urls) if request.HasField("image_urls") else None,
            active=optional(request, "active"),
            version=optional(request, "version"),
        )
        product = await self.products.update(command, current_caller())
        return pb.UpdateProductResponse(product=_product(product))

    async def DeleteProduct(self, request: pb.DeleteProductRequest, context: Context) -> pb.DeleteProductResponse:
        await self.products.delete(request.product_id, current_caller())
        return pb.DeleteProductResponse()

    async def GetStock(self, request: pb.GetStockRequest, context: Context) -> pb.GetStockResponse:
        stock = await self.stock.get(request.product_id, current_caller())
        return pb.GetStockResponse(stock=_stock(stock))

    async def SetStock(self, request: pb.SetStockRequest, context: Context) -> pb.SetStockResponse:
        command = SetStock(
            request.product_id,
            request.on_hand,
            low_threshold=optional(request, "low_threshold"),
            version=optional(request, "version"),
        )
        stock = await self.stock.set(command, current_caller())
        return pb.SetStockResponse(stock=_stock(stock))

    async def AdjustStock(self, request: pb.AdjustStockRequest, context: Context) -> pb.AdjustStockResponse:
        command = AdjustStock(request.product_id, request.delta, request.reason, optional(request, "idempotency_key"))
        adjustment = await self.stock.adjust(command, current_caller())
        return pb.AdjustStockResponse(adjustment=_adjustment(adjustment))

    async def ListStockAdjustments(
        self, request: pb.ListStockAdjustmentsRequest, context: Context
    ) -> pb.ListStockAdjustmentsResponse:
        query = ListAdjustments(request.product_id, request.limit, request.cursor)
        page = await self.stock.list_adjustments(query, current_caller())
        return pb.ListStockAdjustmentsResponse(
            adjustments=[_adjustment(adjustment) for adjustment in page.items], next_cursor=page.next_cursor or ""
        )

    async def ListCategories(self, request: pb.ListCategoriesRequest, context: Context) -> pb.ListCategoriesResponse:
        found = await self.products.list_categories()
        return pb.ListCategoriesResponse(
            categories=[pb.Category(name=category.id, products=category.products) for category in found]
        )


def _product(product: Product) -> pb.Product:
    return to_message(pb.Product, product)


def _stock(stock: Stock) -> pb.Stock:
    return to_message(pb.Stock, stock, product_id=stock.id)


def _adjustment(adjustment: StockAdjustment) -> pb.StockAdjustment:
    at = timestamp(adjustment.at)
    return to_message(pb.StockAdjustment, adjustment, adjusted_by=adjustment.by, created_at=at)
