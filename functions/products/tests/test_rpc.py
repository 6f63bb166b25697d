from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import grpc
import grpc.aio
import pytest

from functions.products.bootstrap import bootstrap
from functions.products.settings import Settings
from functions.products.store import MAPPINGS
from functions.products.tests.shop import placed
from functions.runtime.clock import ManualClock
from functions.runtime.errors import Code, ServiceError, Violation
from functions.runtime.process import ServiceRunner
from functions.runtime.rpc.errors import from_rpc_error
from functions.runtime.store.memory import MemoryStore
from functions.runtime.tests.support import FakeVerifier, bearer, keyed, posted
from proto.shop.money.v1 import money_pb2
from proto.shop.products.v1 import products_pb2 as pb
from proto.shop.products.v1 import products_pb2_grpc

ADMIN = bearer("admin:usr_1")
CUSTOMER = bearer("user:usr_2")


@pytest.fixture
async def runner() -> AsyncIterator[ServiceRunner]:
    clock = ManualClock()
    settings = Settings(broker_url="http://127.0.0.1:1/", drain_seconds=0.2)
    store = MemoryStore(MAPPINGS, clock)
    served = ServiceRunner(keyed(bootstrap(settings, store=store, clock=clock, verifier=FakeVerifier())))
    await served.start()
    yield served
    await served.stop()


@pytest.fixture
async def stub(runner: ServiceRunner) -> AsyncIterator[products_pb2_grpc.ProductsServiceAsyncStub]:
    async with grpc.aio.insecure_channel(runner.grpc_address) as channel:
        yield products_pb2_grpc.ProductsServiceStub(channel)


async def test_a_product_is_created_changed_and_deleted_by_grpc(
    stub: products_pb2_grpc.ProductsServiceAsyncStub,
) -> None:
    created = (await stub.CreateProduct(kettle(), metadata=ADMIN)).product
    read = (await stub.GetProduct(pb.GetProductRequest(product_id=created.id))).product
    assert read == created
    assert (read.price.amount, read.price.currency, read.active, read.version) == (1990, "EUR", True, 1)
    assert read.created_at.ToJsonString() == "2030-01-01T00:00:00Z"

    updated = (
        await stub.UpdateProduct(
            pb.UpdateProductRequest(product_id=created.id, image_urls=pb.ImageUrls(), version=1),
            metadata=ADMIN,
        )
    ).product
    assert (list(updated.image_urls), updated.name, updated.version) == ([], "Kettle", 2)

    request = pb.SetStockRequest(product_id=created.id, on_hand=9, low_threshold=0)
    stock = (await stub.SetStock(request, metadata=ADMIN)).stock
    assert (stock.on_hand, stock.reserved, stock.available, stock.low_threshold) == (9, 0, 9, 0)
    assert (await stub.GetStock(pb.GetStockRequest(product_id=created.id))).stock == stock

    batch = await stub.BatchGetProducts(pb.BatchGetProductsRequest(product_ids=[created.id]))
    assert (list(batch.products), list(batch.stocks)) == ([updated], [])
    stocked = pb.BatchGetProductsRequest(product_ids=[created.id], with_stock=True)
    assert list((await stub.BatchGetProducts(stocked)).stocks) == [stock]
    listed = await stub.ListProducts(pb.ListProductsRequest(query="kett", category="kitchen"))
    assert (list(listed.products), listed.next_cursor) == ([updated], "")
    categories = await stub.ListCategories(pb.ListCategoriesRequest())
    assert list(categories.categories) == [pb.Category(name="kitchen", products=1)]

    await stub.DeleteProduct(pb.DeleteProductRequest(product_id=created.id), metadata=ADMIN)
    assert await refusal(stub.GetProduct(pb.GetProductRequest(product_id=created.id))) is Code.NOT_FOUND


async def test_stock_is_adjusted_and_its_ledger_read(
    stub: products_pb2_grpc.ProductsServiceAsyncStub,
) -> None:
    product = (await stub.CreateProduct(kettle(), metadata=ADMIN)).product
    await stub.SetStock(pb.SetStockRequest(product_id=product.id, on_hand=9), metadata=ADMIN)
    request = pb.AdjustStockRequest(product_id=product.id, delta=-2, reason="Broken", idempotency_key="count-1")
    first = (await stub.AdjustStock(request, metadata=ADMIN)).adjustment
    assert (await stub.AdjustStock(request, metadata=ADMIN)).adjustment == first
    assert (first.delta, first.on_hand, first.reason, first.adjusted_by) == (-2, 7, "Broken", "usr_1")
    assert first.kind == pb.STOCK_ADJUSTMENT_KIND_ADJUSTMENT

    ledger = await stub.ListStockAdjustments(pb.ListStockAdjustmentsRequest(product_id=product.id), metadata=ADMIN)
    assert {(entry.kind, entry.delta) for entry in ledger.adjustments} == {
        (pb.STOCK_ADJUSTMENT_KIND_ADJUSTMENT, -2),
        (pb.STOCK_ADJUSTMENT_KIND_CORRECTION, 9),
    }
    for call in (
        stub.AdjustStock(request, metadata=CUSTOMER),
        stub.ListStockAdjustments(pb.ListStockAdjustmentsRequest(product_id=product.id), metadata=CUSTOMER),
    ):
        assert await refusal(call) is Code.PERMISSION_DENIED


async def test_a_page_goes_on_at_its_cursor(stub: products_pb2_grpc.ProductsServiceAsyncStub) -> None:
    for sku in ("a", "b", "c"):
        await stub.CreateProduct(kettle(sku=sku), metadata=ADMIN)

    first = await stub.ListProducts(pb.ListProductsRequest(limit=2))
    second = await stub.ListProducts(pb.ListProductsRequest(limit=2, cursor=first.next_cursor))

    assert sorted(p.sku for page in (first, second) for p in page.products) == ["a", "b", "c"]
    assert second.next_cursor == ""


async def test_customers_and_strangers_read_but_do_not_write(
    stub: products_pb2_grpc.ProductsServiceAsyncStub,
) -> None:
    created = (await stub.CreateProduct(kettle(), metadata=ADMIN)).product
    for metadata, code in ((CUSTOMER, Code.PERMISSION_DENIED), (None, Code.UNAUTHENTICATED)):
        await stub.GetProduct(pb.GetProductRequest(product_id=created.id), metadata=metadata)
        writes = [
            stub.CreateProduct(kettle(), metadata=metadata),
            stub.UpdateProduct(pb.UpdateProductRequest(product_id=created.id), metadata=metadata),
            stub.DeleteProduct(pb.DeleteProductRequest(product_id=created.id), metadata=metadata),
            stub.SetStock(pb.SetStockRequest(product_id=created.id, on_hand=1), metadata=metadata),
        ]
        assert [await refusal(write) for write in writes] == [code] * 4


async def test_a_refusal_names_the_fields_as_the_body_has_them(
    stub: products_pb2_grpc.ProductsServiceAsyncStub,
) -> None:
    request = kettle(price=money_pb2.Money(amount=5, currency="EUX"), image_urls=["ftp://x"])

    error = await failure(stub.CreateProduct(request, metadata=ADMIN))

    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert error.violations == (
        Violation("price.currency", "must be a currency code of ISO 4217, such as EUR"),
        Violation("image_urls[0]", "must be an https URL of at most 2048 characters"),
    )


async def test_a_product_without_a_price_is_refused(stub: products_pb2_grpc.ProductsServiceAsyncStub) -> None:
    request = pb.CreateProductRequest(sku="a", name="Kettle", category="kitchen")

    error = await failure(stub.CreateProduct(request, metadata=ADMIN))

    assert [violation.field for violation in error.violations] == ["price"]


async def test_an_order_reserves_once_however_often_its_event_comes(
    runner: ServiceRunner, stub: products_pb2_grpc.ProductsServiceAsyncStub
) -> None:
    created = (await stub.CreateProduct(kettle(), metadata=ADMIN)).product
    await stub.SetStock(pb.SetStockRequest(product_id=created.id, on_hand=9), metadata=ADMIN)
    order = placed((created.id, 2))
    headers, data = posted(order, "event-1")

    async with aiohttp.ClientSession(headers=headers) as session:
        for _ in range(3):
            async with session.post(f"{runner.http_url}/", data=data) as answer:
                assert (answer.status, await answer.read()) == (204, b"")

    stock = (await stub.GetStock(pb.GetStockRequest(product_id=created.id))).stock
    assert (stock.on_hand, stock.reserved, stock.available) == (9, 2, 7)


def kettle(**fields: object) -> pb.CreateProductRequest:
    """A valid request but for `fields`."""
    valid: dict[str, object] = {
        "sku": "KET-1",
        "name": "Kettle",
        "category": "kitchen",
        "price": money_pb2.Money(amount=1990, currency="EUR"),
        "image_urls": ["https://shop.example/kettle.png"],
    }
    return pb.CreateProductRequest(**(valid | fields))  # type: ignore[arg-type] # fields are named by the tests


async def failure(call: object) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call  # type: ignore[misc] # any call
    return from_rpc_error(raised.value)


async def refusal(call: object) -> Code:
    return (await failure(call)).code
