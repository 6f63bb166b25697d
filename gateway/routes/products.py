"""The catalogue and its stock."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from functions.runtime.formats import MAX_QUERY
from functions.runtime.identity import current_caller
from gateway.limits import SEARCH_COST
from gateway.middleware.request_context import clients_of, request_context_of
from gateway.models import products as models
from gateway.responses import (
    PRIVATE,
    REVALIDATE,
    answer,
    conditional,
    empty,
    etag,
    expected_version,
    require_match,
)
from gateway.route_options import declare
from gateway.routes.params import Cursor, Limit, ProductId, idempotency_key, routes
from proto.shop.products.v1 import products_pb2 as pb

router = routes("products")

Category = Annotated[
    str, Query(max_length=50, pattern=r"^[a-z0-9-]*$", description="Only this category; empty: all.")
]
Words = Annotated[
    str,
    Query(
        max_length=MAX_QUERY,
        pattern=r"^[^\x00-\x1f\x7f-\x9f]*$",
        description="Words that must all occur, whatever their case and accents: by their beginnings, or anywhere in"
        " scripts without spaces; empty: all.",
    ),
]
_UNKNOWN = {404: "PRODUCT_NOT_FOUND"}


def _cache() -> bytes:
    """What everybody may read may be kept, if it is asked about each time; what an admin sees may not."""
    return PRIVATE if current_caller().subject else REVALIDATE


@router.get(
    "/v1/products/{product_id}", **declare("anyone", 200, models.Product, tagged="read", problems=_UNKNOWN)
)
async def read_product(request: Request, product_id: ProductId) -> Response:
    """Read a product.

    One that is not for sale is shown to administrators only.
    """
    products = clients_of(request).products
    found = (
        await products.read(products.stub.GetProduct, pb.GetProductRequest(product_id=product_id))
    ).product
    return conditional(request, models.product(found), cache=_cache())


@router.get("/v1/products", **declare("anyone", 200, models.ProductPage))
async def list_products(
    request: Request,
    category: Category = "",
    q: Words = "",
    include_inactive: Annotated[bool, Query(description="Administrators only.")] = False,
    limit: Limit = 20,
    cursor: Cursor = "",
) -> Response:
    """Browse or search the catalogue, newest first."""
    if q:
        request_context_of(request).charge(SEARCH_COST)
    products = clients_of(request).products
    wanted = pb.ListProductsRequest(
        category=category, query=q, limit=limit, cursor=cursor, include_inactive=include_inactive
    )
    found = await products.read(products.stub.ListProducts, wanted)
    page: models.ProductPage = {
        "items": [models.product(product) for product in found.products],
        "next_cursor": found.next_cursor or None,
    }
    return answer(page)


@router.get("/v1/categories", **declare("anyone", 200, models.CategoryPage))
async def list_categories(request: Request) -> Response:
    """List the categories in use."""
    products = clients_of(request).products
    found = await products.read(products.stub.ListCategories, pb.ListCategoriesRequest())
    page: models.CategoryPage = {
        "items": [{"name": category.name, "products": category.products} for category in found.categories],
        "next_cursor": None,
    }
    return answer(page)


@router.post(
    "/v1/products",
    **declare("admin", 201, models.Product, problems={409: "SKU_TAKEN"}, tagged="sent", located=True),
)
async def create_product(request: Request, body: models.CreateProduct) -> Response:
    """Add a product."""
    products = clients_of(request).products
    wanted = pb.CreateProductRequest(
        sku=body.sku,
        name=body.name,
        description=body.description,
        category=body.category,
        price=body.price.to_proto(),
        image_urls=body.image_urls,
        active=body.active,
    )
    product = models.product((await products.write(products.stub.CreateProduct, wanted)).product)
    return answer(product, 201, location=f"/v1/products/{product['id']}", tag=etag(product["version"]))


async def _version(request: Request, product_id: str) -> int:
    products = clients_of(request).products
    found = (
        await products.read(products.stub.GetProduct, pb.GetProductRequest(product_id=product_id))
    ).product
    return found.version


@router.patch(
    "/v1/products/{product_id}", **declare("admin", 200, models.Product, tagged="write", problems=_UNKNOWN)
)
async def update_product(request: Request, product_id: ProductId, body: models.UpdateProduct) -> Response:
    """Change a product.

    What is absent stays as it is; orders placed before keep their price.
    """
    products = clients_of(request).products
    wanted = pb.UpdateProductRequest(
        product_id=product_id,
        name=body.name,
        description=body.description,
        category=body.category,
        price=body.price.to_proto() if body.price is not None else None,
        image_urls=pb.ImageUrls(urls=body.image_urls) if body.image_urls is not None else None,
        active=body.active,
        version=await expected_version(request, lambda: _version(request, product_id)),
    )
    product = models.product((await products.write(products.stub.UpdateProduct, wanted)).product)
    return answer(product, tag=etag(product["version"]))


@router.delete("/v1/products/{product_id}", **declare("admin", 204, tagged="write", problems=_UNKNOWN))
async def delete_product(request: Request, product_id: ProductId) -> Response:
    """Take a product out of the catalogue.

    Its stock and its history stay.
    """
    products = clients_of(request).products
    await require_match(request, lambda: _version(request, product_id))
    await products.write(products.stub.DeleteProduct, pb.DeleteProductRequest(product_id=product_id))
    return empty()


async def _stock(request: Request, product_id: str) -> pb.Stock:
    products = clients_of(request).products
    return (await products.read(products.stub.GetStock, pb.GetStockRequest(product_id=product_id))).stock


@router.get(
    "/v1/products/{product_id}/stock",
    **declare("anyone", 200, models.Stock, tagged="read", problems=_UNKNOWN),
)
async def read_stock(request: Request, product_id: ProductId) -> Response:
    """Read what is on hand, reserved and available."""
    return conditional(request, models.stock(await _stock(request, product_id)), cache=_cache())


@router.put(
    "/v1/products/{product_id}/stock",
    **declare("admin", 200, models.Stock, tagged="write", problems={**_UNKNOWN, 409: "STOCK_RESERVED"}),
)
async def set_stock(request: Request, product_id: ProductId, body: models.SetStock) -> Response:
    """Set what is on hand.

    It cannot fall below what is reserved. The difference is entered in the ledger. With If-Match, a sale since
    the stock was read is not overwritten; an adjustment never overwrites one.
    """
    products = clients_of(request).products

    async def current() -> int:
        return (await _stock(request, product_id)).version

    wanted = pb.SetStockRequest(
        product_id=product_id,
        on_hand=body.on_hand,
        low_threshold=body.low_threshold,
        version=await expected_version(request, current),
    )
    stock = models.stock((await products.write(products.stub.SetStock, wanted)).stock)
    return answer(stock, tag=etag(stock["version"]))


@router.post(
    "/v1/products/{product_id}/stock/adjustments",
    **declare(
        "admin",
        201,
        models.StockAdjustment,
        headers=("idempotency-key",),
        problems={
            **_UNKNOWN,
            409: "STOCK_RESERVED, IDEMPOTENCY_KEY_IN_FLIGHT",
            422: "IDEMPOTENCY_KEY_REUSED",
        },
    ),
)
async def adjust_stock(request: Request, product_id: ProductId, body: models.AdjustStock) -> Response:
    """Change what is on hand by a difference.

    It cannot fall below what is reserved. What was sold meanwhile stays sold.
    """
    products = clients_of(request).products
    wanted = pb.AdjustStockRequest(
        product_id=product_id,
        delta=body.delta,
        reason=body.reason,
        idempotency_key=idempotency_key(request),
    )
    adjusted = await products.write(products.stub.AdjustStock, wanted)
    return answer(models.adjustment(adjusted.adjustment), 201)


@router.get(
    "/v1/products/{product_id}/stock/adjustments",
    **declare("admin", 200, models.StockAdjustmentPage, problems=_UNKNOWN),
)
async def list_stock_adjustments(
    request: Request, product_id: ProductId, limit: Limit = 20, cursor: Cursor = ""
) -> Response:
    """List a product's stock ledger, newest first: what was changed by hand."""
    products = clients_of(request).products
    wanted = pb.ListStockAdjustmentsRequest(product_id=product_id, limit=limit, cursor=cursor)
    found = await products.read(products.stub.ListStockAdjustments, wanted)
    page: models.StockAdjustmentPage = {
        "items": [models.adjustment(entry) for entry in found.adjustments],
        "next_cursor": found.next_cursor or None,
    }
    return answer(page)
