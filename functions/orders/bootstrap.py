"""The composition root of the orders service."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from functions.orders.clients import Catalogue, ProductsCatalogue
from functions.orders.metrics import EVENT_METRICS
from functions.orders.service import OrdersService
from functions.orders.settings import Settings
from functions.orders.store import MAPPINGS, OrderRepository
from functions.orders.stream_tickets import StreamTickets
from functions.orders.subscriptions import subscriptions
from functions.orders.velocity import Limits, VelocityLimits
from functions.orders.watchers import Watchers
from functions.runtime.app import Function, Hook, RpcService
from functions.runtime.clock import Clock, SystemClock
from functions.runtime.currencies import PROVIDERS
from functions.runtime.factories import event_signer, event_verifier, open_store, remote_verifier, service_client
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
    """Compose the service. An argument replaces the collaborator that the settings describe."""
    clock = clock or SystemClock()
    store = store or open_store(settings, "orders", MAPPINGS, clock)
    watchers = Watchers(store, settings.watch_poll_seconds, settings.watch_limit, settings.watch_limit_each)
    on_stop: list[Hook] = []
    if catalogue is None:
        address = settings.products_address
        catalogue = ProductsCatalogue(service_client(settings, "orders", "products", address, clock, on_stop))
    service = OrdersService(
        OrderRepository(store, _velocity_limits(settings), watchers.notify),
        catalogue,
        clock,
        watchers,
        StreamTickets(store, clock),
        provider_limits=PROVIDERS[settings.payment_provider],
        order_timeout=timedelta(seconds=settings.order_timeout_seconds),
    )
    return Function(
        name="orders",
        settings=settings,
        store=store,
        services=partial(_services, settings, service),
        subscriptions=subscriptions(service),
        verifier=verifier or remote_verifier(settings, "orders", clock, on_stop),
        clock=clock,
        signer=event_signer(settings, "orders"),
        signatures=event_verifier(settings, "orders"),
        event_metrics=EVENT_METRICS,
        on_drain=[watchers.close],
        on_stop=on_stop,
    )


def _services(settings: Settings, service: OrdersService) -> list[RpcService]:
    from functions.orders.rpc import ACCESS, OrdersServicer  # ROLE=events must not import gRPC
    from proto.shop.orders.v1.orders_pb2_grpc import add_OrdersServiceServicer_to_server

    servicer = OrdersServicer(service, settings.client_address_header.lower())
    return [RpcService(add_OrdersServiceServicer_to_server, servicer, "shop.orders.v1.OrdersService", ACCESS)]


def _velocity_limits(settings: Settings) -> VelocityLimits | None:
    share = settings.unpaid_stock_share
    limits = VelocityLimits(
        account=Limits(settings.orders_per_hour, settings.declines_per_hour, settings.unpaid_orders, share),
        device=Limits(
            settings.orders_per_hour_per_device,
            settings.declines_per_hour_per_device,
            settings.unpaid_orders_per_device,
            share,
        ),
        address=Limits(
            settings.orders_per_hour_per_address,
            settings.declines_per_hour_per_address,
            settings.unpaid_orders_per_address,
            settings.unpaid_stock_share_per_address,
        ),
        unpaid_pieces=settings.unpaid_pieces,
    )
    return limits if limits.any else None
