"""The composition root of the products service."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from functions.products.search.listing import ProductListing
from functions.products.service import ProductsService
from functions.products.settings import Settings
from functions.products.stock.service import StockService
from functions.products.store import MAPPINGS
from functions.products.subscriptions import subscriptions
from functions.runtime.app import Function, Hook, RpcService
from functions.runtime.clock import Clock, SystemClock
from functions.runtime.currencies import PROVIDERS
from functions.runtime.factories import event_signer, event_verifier, open_store, remote_verifier
from functions.runtime.store.port import Store
from functions.runtime.tokens import TokenVerifier


def bootstrap(
    settings: Settings, *, store: Store | None = None, clock: Clock | None = None, verifier: TokenVerifier | None = None
) -> Function:
    """Compose the service. An argument replaces the collaborator that the settings describe."""
    clock = clock or SystemClock()
    store = store or open_store(settings, "products", MAPPINGS, clock)
    products = ProductsService(
        store, ProductListing(store), clock, provider_limits=PROVIDERS[settings.payment_provider]
    )
    stock = StockService(store, products, clock, reservation_time=timedelta(minutes=settings.reservation_minutes))
    on_stop: list[Hook] = []
    return Function(
        name="products",
        settings=settings,
        store=store,
        services=partial(_services, products, stock),
        subscriptions=subscriptions(products, stock),
        verifier=verifier or remote_verifier(settings, "products", clock, on_stop),
        clock=clock,
        signer=event_signer(settings, "products"),
        signatures=event_verifier(settings, "products"),
        on_stop=on_stop,
    )


def _services(products: ProductsService, stock: StockService) -> list[RpcService]:
    from functions.products.rpc import ACCESS, ProductsServicer  # ROLE=events must not import gRPC
    from proto.shop.products.v1.products_pb2_grpc import add_ProductsServiceServicer_to_server

    servicer = ProductsServicer(products, stock)
    return [RpcService(add_ProductsServiceServicer_to_server, servicer, "shop.products.v1.ProductsService", ACCESS)]
