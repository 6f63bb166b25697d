"""The gRPC servicer of the catalogue and its stock."""

from __future__ import annotations

from typing import Any

import grpc.aio

from events.catalog import Money
from functions.products import service, stock_service
from functions.products.domain import Product
from functions.products.listing import Query, list_products
from functions.products.stock import Stock, StockAdjustment
from functions.products.validation import Draft, Edit
from functions.runtime.access import ADMINS, ANYBODY
from functions.runtime.clock import Clock
from functions.runtime.currencies import ProviderLimits
from functions.runtime.identity import current_caller
from functions.runtime.messages import money, timestamp
from functions.runtime.store.port import Store
from proto.shop.money.v1 import money_pb2
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
"""Who may call; the use cases ask for more."""


class Products(products_pb2_grpc.ProductsServiceServicer):
    """Between protobuf and the use cases."""

    def __init__(self, store: Store, clock: Clock, limits: ProviderLimits) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits

    async def CreateProduct(
        self, request: pb.CreateProductRequest, context: Context
    ) -> pb.CreateProductResponse:
        """See the proto."""
        draft = Draft(
            sku=request.sku,
            name=request.name,
            description=request.description,
            category=request.category,
            price=_from_money(request.price) if request.HasField("price") else None,
            image_urls=list(request.image_urls),
            active=request.active if request.HasField("active") else True,
        )
        return pb.CreateProductResponse(
            product=_product(
                await service.create_product(self._store, self._clock, current_caller(), draft, self._limits)
            )
        )

    async def GetProduct(self, request: pb.GetProductRequest, context: Context) -> pb.GetProductResponse:
        """See the proto."""
        return pb.GetProductResponse(
            product=_product(await service.get_product(self._store, current_caller(), request.product_id))
        )

    async def BatchGetProducts(
        self, request: pb.BatchGetProductsRequest, context: Context
    ) -> pb.BatchGetProductsResponse:
        """See the proto."""
        found = await service.get_products(self._store, current_caller(), request.product_ids)
        return pb.BatchGetProductsResponse(products=[_product(product) for product in found])

    async def ListProducts(
        self, request: pb.ListProductsRequest, context: Context
    ) -> pb.ListProductsResponse:
        """See the proto."""
        query = Query(
            request.category, request.query, request.limit, request.cursor, request.include_inactive
        )
        page = await list_products(self._store, current_caller(), query)
        products = [_product(product) for product in page.items]
        return pb.ListProductsResponse(products=products, next_cursor=page.next_cursor or "")

    async def UpdateProduct(
        self, request: pb.UpdateProductRequest, context: Context
    ) -> pb.UpdateProductResponse:
        """See the proto."""
        edit = Edit(
            name=_given(request, "name"),
            description=_given(request, "description"),
            category=_given(request, "category"),
            price=_from_money(request.price) if request.HasField("price") else None,
            image_urls=list(request.image_urls.urls) if request.HasField("image_urls") else None,
            active=_given(request, "active"),
        )
        version = _given(request, "version")
        return pb.UpdateProductResponse(
            product=_product(
                await service.update_product(
                    self._store,
                    self._clock,
                    current_caller(),
                    request.product_id,
                    edit,
                    version,
                    limits=self._limits,
                )
            )
        )

    async def DeleteProduct(
        self, request: pb.DeleteProductRequest, context: Context
    ) -> pb.DeleteProductResponse:
        """See the proto."""
        await service.delete_product(self._store, self._clock, current_caller(), request.product_id)
        return pb.DeleteProductResponse()

    async def GetStock(self, request: pb.GetStockRequest, context: Context) -> pb.GetStockResponse:
        """See the proto."""
        return pb.GetStockResponse(
            stock=_stock(await stock_service.get_stock(self._store, current_caller(), request.product_id))
        )

    async def SetStock(self, request: pb.SetStockRequest, context: Context) -> pb.SetStockResponse:
        """See the proto."""
        stock = await stock_service.set_stock(
            self._store,
            self._clock,
            current_caller(),
            request.product_id,
            request.on_hand,
            low_threshold=_given(request, "low_threshold"),
            version=_given(request, "version"),
        )
        return pb.SetStockResponse(stock=_stock(stock))

    async def AdjustStock(self, request: pb.AdjustStockRequest, context: Context) -> pb.AdjustStockResponse:
        """See the proto."""
        entry = await stock_service.adjust_stock(
            self._store,
            self._clock,
            current_caller(),
            request.product_id,
            delta=request.delta,
            reason=request.reason,
            key=_given(request, "idempotency_key"),
        )
        return pb.AdjustStockResponse(adjustment=_adjustment(entry))

    async def ListStockAdjustments(
        self, request: pb.ListStockAdjustmentsRequest, context: Context
    ) -> pb.ListStockAdjustmentsResponse:
        """See the proto."""
        page = await stock_service.list_adjustments(
            self._store, current_caller(), request.product_id, request.limit, request.cursor
        )
        return pb.ListStockAdjustmentsResponse(
            adjustments=[_adjustment(entry) for entry in page.items], next_cursor=page.next_cursor or ""
        )

    async def ListCategories(
        self, request: pb.ListCategoriesRequest, context: Context
    ) -> pb.ListCategoriesResponse:
        """See the proto."""
        found = await service.list_categories(self._store)
        return pb.ListCategoriesResponse(
            categories=[pb.Category(name=category.id, products=category.products) for category in found]
        )


def _given(request: Any, field: str) -> Any:
    """The value of an optional field, None where it is absent."""
    return getattr(request, field) if request.HasField(field) else None


def _from_money(money: money_pb2.Money) -> Money:
    return Money(money.amount, money.currency)


def _product(product: Product) -> pb.Product:
    return pb.Product(
        id=product.id,
        sku=product.sku,
        name=product.name,
        description=product.description,
        category=product.category,
        price=money(product.price),
        image_urls=product.image_urls,
        active=product.active,
        version=product.version,
        created_at=timestamp(product.created_at),
        updated_at=timestamp(product.updated_at),
    )


def _stock(stock: Stock) -> pb.Stock:
    return pb.Stock(
        product_id=stock.id,
        on_hand=stock.on_hand,
        reserved=stock.reserved,
        available=stock.available,
        version=stock.version,
        low_threshold=stock.low_threshold,
    )


def _adjustment(entry: StockAdjustment) -> pb.StockAdjustment:
    return pb.StockAdjustment(
        id=entry.id,
        product_id=entry.product_id,
        kind=pb.StockAdjustmentKind.Value(f"STOCK_ADJUSTMENT_KIND_{entry.kind}"),
        delta=entry.delta,
        on_hand=entry.on_hand,
        reason=entry.reason,
        adjusted_by=entry.by,
        created_at=timestamp(entry.at),
    )
