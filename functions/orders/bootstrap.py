"""The composition root: settings to store, clients and clock, to the service."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from functions.orders.clients import Catalogue, ProductsCatalogue
from functions.orders.metrics import EVENT_METRICS
from functions.orders.settings import Settings
from functions.orders.store import MAPPINGS, Orders
from functions.orders.subscriptions import subscriptions
from functions.orders.velocity import Budgets
from functions.orders.watching import Watchers
from functions.runtime.app import Function, Hook, RpcService
from functions.runtime.clock import Clock, SystemClock
from functions.runtime.currencies import PROVIDERS
from functions.runtime.factories import (
    event_signer,
    event_verifier,
    open_store,
    remote_keys,
    service_tokens,
    token_verifier,
)
from functions.runtime.grpc_client import GrpcClient
from functions.runtime.store.port import Store
from functions.runtime.tokens import TokenVerifier


def bootstrap(
    settings: Settings,
    *,
    store: Store | None = None,
    clock: Clock | None = None,
    catalogue: Catalogue | None = None,
    verifier: TokenVerifier | None = None,
) -> Function:
    """Compose the service; what is given replaces what the settings would make."""
    clock = clock or SystemClock()
    store = store or open_store(settings, "orders", MAPPINGS, clock)
    watchers = Watchers(store, settings.watch_poll_seconds, settings.watch_limit, settings.watch_limit_each)
    orders = Orders(store, watchers.changed)
    stops: list[Hook] = []
    catalogue = catalogue or _catalogue(settings, clock, stops)
    return Function(
        name="orders",
        settings=settings,
        store=store,
        services=partial(_services, settings, orders, catalogue, watchers, clock),
        subscriptions=subscriptions(orders, clock, timedelta(seconds=settings.order_timeout_seconds)),
        verifier=verifier or _verifier(settings, clock, stops),
        clock=clock,
        signer=event_signer(settings, "orders"),
        signatures=event_verifier(settings, "orders"),
        event_metrics=EVENT_METRICS,
        on_drain=[watchers.close],
        on_stop=stops,
    )


def _services(
    settings: Settings, orders: Orders, catalogue: Catalogue, watchers: Watchers, clock: Clock
) -> list[RpcService]:
    from functions.orders.rpc import ACCESS, OrdersServicer  # gRPC only where its door opens
    from proto.shop.orders.v1.orders_pb2_grpc import add_OrdersServiceServicer_to_server

    budgets = Budgets(
        settings.orders_per_hour,
        settings.declines_per_hour,
        settings.unpaid_orders,
        settings.orders_per_hour_per_address,
        settings.declines_per_hour_per_address,
    )
    limits, header = PROVIDERS[settings.payment_provider], settings.client_address_header.lower()
    bounds = budgets if budgets.any else None
    servicer = OrdersServicer(orders, catalogue, watchers, clock, limits, bounds, header)
    return [RpcService(add_OrdersServiceServicer_to_server, servicer, "shop.orders.v1.OrdersService", ACCESS)]


def _catalogue(settings: Settings, clock: Clock, stops: list[Hook]) -> Catalogue:
    products = GrpcClient(settings.products_address, service_tokens(settings, "orders", clock), "products")
    stops.append(products.close)
    return ProductsCatalogue(products)


def _verifier(settings: Settings, clock: Clock, stops: list[Hook]) -> TokenVerifier:
    users = GrpcClient(settings.users_address)
    stops.append(users.close)
    return token_verifier(settings, "orders", remote_keys(users), clock)
