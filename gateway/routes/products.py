"""Routes of the catalogue and of stock."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from functions.runtime.formats import MAX_QUERY
from gateway import api_errors as errors
from gateway.dependencies import Context, ProductsClient
from gateway.limits import SEARCH_COST
from gateway.models import products as models
from gateway.models.common import view
from gateway.preconditions import Precondition
from gateway.routes.parameters import Cursor, IdempotencyKey, Limit, ProductId
from gateway.routing import Access, ApiRouter
from proto.shop.products.v1 import products_pb2 as pb

router = ApiRouter("products")

Category = Annotated[str, Query(max_length=50, pattern=r"^[a-z0-9-]*$", description="Only this category; empty: all.")]
Words = Annotated[
    str,
    Query(
        max_length=MAX_QUERY,
        pattern=r"^[^\x00-\x1f\x7f-\x9f]*$",
        description="Search words; empty for all products. Each must be the beginning of a word of the product, or, in"
        " scripts without spaces, occur anywhere. Case and accents are ignored.",
    ),
]
IncludeInactive = Annotated[bool, Query(description="Also list inactive products; administrators only.")]


async def _read(products: ProductsClient, product_id: str) -> pb.Product:
    query = pb.GetProductRequest(product_id=product_id)
    return (await products.read(products.stub.GetProduct, query)).product


async def _read_stock(products: ProductsClient, product_id: str) -> pb.Stock:
    return (await products.read(products.stub.GetStock, pb.GetStockRequest(product_id=product_id))).stock


@router.get(
    "/v1/products/{product_id}", access=Access.OPTIONAL, etag=True, cacheable=True, errors=[errors.PRODUCT_NOT_FOUND]
)
async def read_product(product_id: ProductId, products: ProductsClient) -> models.Product:
    """Read a product.

    Only administrators can read inactive products.
    """
    return view(models.Product, await _read(products, product_id))


@router.get("/v1/products", access=Access.OPTIONAL)
async def list_products(
    context: Context,
    products: ProductsClient,
    *,
    category: Category = "",
    q: Words = "",
    include_inactive: IncludeInactive = False,
    limit: Limit = 20,
    cursor: Cursor = "",
) -> models.ProductPage:
    """List or search the products of the catalogue, newest first."""
    if q:
        context.charge(SEARCH_COST)
    query = pb.ListProductsRequest(
        category=category, query=q, limit=limit, cursor=cursor, include_inactive=include_inactive
    )
    found = await products.read(products.stub.ListProducts, query)
    return {
        "items": [view(models.Product, product) for product in found.products],
        "next_cursor": found.next_cursor or None,
    }


@router.get("/v1/categories", access=Access.OPTIONAL)
async def list_categories(products: ProductsClient) -> models.CategoryPage:
    """List the categories in use."""
    found = await products.read(products.stub.ListCategories, pb.ListCategoriesRequest())
    return {
        "items": [{"name": category.name, "products": category.products} for category in found.categories],
        "next_cursor": None,
    }


@router.post(
    "/v1/products",
    access=Access.ADMIN,
    status_code=201,
    etag=True,
    location="/v1/products/{id}",
    errors=[errors.SKU_TAKEN],
)
async def create_product(body: models.CreateProduct, products: ProductsClient) -> models.Product:
    """Add a product."""
    command = pb.CreateProductRequest(
        sku=body.sku,
        name=body.name,
        description=body.description,
        category=body.category,
        price=body.price.to_proto(),
        image_urls=body.image_urls,
        active=body.active,
    )
    return view(models.Product, (await products.write(products.stub.CreateProduct, command)).product)


@router.patch("/v1/products/{product_id}", access=Access.ADMIN, etag=True, errors=[errors.PRODUCT_NOT_FOUND])
async def update_product(
    product_id: ProductId, body: models.UpdateProduct, products: ProductsClient, if_match: Precondition
) -> models.Product:
    """Change a product.

    Absent fields stay unchanged. Existing orders keep their prices.
    """

    async def current() -> int:
        return (await _read(products, product_id)).version

    command = pb.UpdateProductRequest(
        product_id=product_id,
        name=body.name,
        description=body.description,
        category=body.category,
        price=body.price.to_proto() if body.price is not None else None,
        image_urls=pb.ImageUrls(urls=body.image_urls) if body.image_urls is not None else None,
        active=body.active,
        version=await if_match.version(current),
    )
    return view(models.Product, (await products.write(products.stub.UpdateProduct, command)).product)


@router.delete("/v1/products/{product_id}", access=Access.ADMIN, errors=[errors.PRODUCT_NOT_FOUND])
async def delete_product(product_id: ProductId, products: ProductsClient, if_match: Precondition) -> None:
    """Delete a product from the catalogue.

    Its stock record and stock ledger are kept.
    """

    async def current() -> int:
        return (await _read(products, product_id)).version

    await if_match.require(current)
    await products.write(products.stub.DeleteProduct, pb.DeleteProductRequest(product_id=product_id))


@router.get(
    "/v1/products/{product_id}/stock",
    access=Access.OPTIONAL,
    etag=True,
    cacheable=True,
    errors=[errors.PRODUCT_NOT_FOUND],
)
async def read_stock(product_id: ProductId, products: ProductsClient) -> models.Stock:
    """Read the stock of a product: pieces on hand, reserved and available."""
    return view(models.Stock, await _read_stock(products, product_id))


@router.put(
    "/v1/products/{product_id}/stock",
    access=Access.ADMIN,
    etag=True,
    errors=[errors.PRODUCT_NOT_FOUND, errors.STOCK_RESERVED],
)
async def set_stock(
    product_id: ProductId, body: models.SetStock, products: ProductsClient, if_match: Precondition
) -> models.Stock:
    """Set the number of pieces on hand.

    The number must not be below the reserved pieces. The difference is recorded in the stock ledger. Without If-Match,
    a sale that happened after the stock was read is overwritten. An adjustment never overwrites a sale.
    """

    async def current() -> int:
        return (await _read_stock(products, product_id)).version

    command = pb.SetStockRequest(
        product_id=product_id,
        on_hand=body.on_hand,
        low_threshold=body.low_threshold,
        version=await if_match.version(current),
    )
    return view(models.Stock, (await products.write(products.stub.SetStock, command)).stock)


@router.post(
    "/v1/products/{product_id}/stock/adjustments",
    access=Access.ADMIN,
    status_code=201,
    errors=[
        errors.PRODUCT_NOT_FOUND,
        errors.STOCK_RESERVED,
        errors.IDEMPOTENCY_KEY_IN_FLIGHT,
        errors.IDEMPOTENCY_KEY_REUSED,
    ],
)
async def adjust_stock(
    product_id: ProductId, body: models.AdjustStock, products: ProductsClient, idempotency_key: IdempotencyKey = None
) -> models.StockAdjustment:
    """Add pieces to the stock, or remove them.

    The result must not be below the reserved pieces. Concurrent sales are not overwritten.
    """
    command = pb.AdjustStockRequest(
        product_id=product_id, delta=body.delta, reason=body.reason, idempotency_key=idempotency_key
    )
    return view(models.StockAdjustment, (await products.write(products.stub.AdjustStock, command)).adjustment)


@router.get("/v1/products/{product_id}/stock/adjustments", access=Access.ADMIN, errors=[errors.PRODUCT_NOT_FOUND])
async def list_stock_adjustments(
    product_id: ProductId, products: ProductsClient, limit: Limit = 20, cursor: Cursor = ""
) -> models.StockAdjustmentPage:
    """List a product's stock ledger (changes by administrators), newest first."""
    query = pb.ListStockAdjustmentsRequest(product_id=product_id, limit=limit, cursor=cursor)
    found = await products.read(products.stub.ListStockAdjustments, query)
    return {
        "items": [view(models.StockAdjustment, entry) for entry in found.adjustments],
        "next_cursor": found.next_cursor or None,
    }
