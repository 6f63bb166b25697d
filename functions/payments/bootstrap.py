"""The composition root of the payments service."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from functions.payments import simulated
from functions.payments.clients import Orders, OrdersPeer
from functions.payments.desk import Desk
from functions.payments.metrics import EVENT_METRICS
from functions.payments.provider import Bounded, Provider, Webhook
from functions.payments.settings import Settings
from functions.payments.store import MAPPINGS
from functions.payments.subscriptions import subscriptions
from functions.runtime import factories
from functions.runtime.app import Function, Hook, RpcService
from functions.runtime.clock import Clock, SystemClock
from functions.runtime.credentials import secret
from functions.runtime.currencies import PROVIDERS
from functions.runtime.grpc_client import GrpcClient
from functions.runtime.settings import SettingsError
from functions.runtime.store.port import Store
from functions.runtime.tokens import TokenVerifier

_TEST_KEYS = ("sk_test_", "rk_test_")


def bootstrap(
    settings: Settings,
    *,
    store: Store | None = None,
    clock: Clock | None = None,
    provider: Provider | None = None,
    orders: Orders | None = None,
    verifier: TokenVerifier | None = None,
) -> Function:
    """Compose the service; what is passed in takes the place of the real thing."""
    clock = clock or SystemClock()
    closing: list[Hook] = []
    if provider is None:
        provider = open_provider(settings, clock)
        closing.append(provider.close)
    orders = orders or _orders(settings, clock, closing)
    verifier = verifier or _verifier(settings, clock, closing)
    store = store or factories.open_store(settings, "payments", MAPPINGS, clock)
    settle_after = timedelta(seconds=settings.payment_settle_after)
    limits = PROVIDERS[settings.payment_provider]
    desk = Desk(store, provider, orders, clock, settle_after, open_webhook(settings), limits)
    return Function(
        name="payments",
        settings=settings,
        store=store,
        services=partial(_services, desk),
        subscriptions=subscriptions(desk),
        verifier=verifier,
        clock=clock,
        signer=factories.event_signer(settings, "payments"),
        signatures=factories.event_verifier(settings, "payments"),
        event_metrics=EVENT_METRICS,
        on_stop=closing,
    )


def _orders(settings: Settings, clock: Clock, closing: list[Hook]) -> Orders:
    peer = GrpcClient(
        settings.orders_address, factories.service_tokens(settings, "payments", clock), "orders"
    )
    closing.append(peer.close)
    return OrdersPeer(peer)


def _verifier(settings: Settings, clock: Clock, closing: list[Hook]) -> TokenVerifier:
    users = GrpcClient(settings.users_address)
    closing.append(users.close)
    return factories.token_verifier(settings, "payments", factories.remote_keys(users), clock)


def open_provider(settings: Settings, clock: Clock) -> Provider:
    """The provider that PAYMENT_PROVIDER names; raises SettingsError where it cannot be used."""
    stripe = settings.payment_provider == "stripe"
    if not stripe and settings.shop_env == "production":
        raise SettingsError("PAYMENT_PROVIDER: simulated charges nobody; production needs stripe")
    provider = _stripe(settings, clock) if stripe else _simulated(settings, clock)
    return Bounded(provider, settings.payment_timeout)


def _simulated(settings: Settings, clock: Clock) -> Provider:
    books = factories.open_store(settings, "payments-ledger", simulated.MAPPINGS, clock)
    return simulated.SimulatedProvider(books, clock, settings.payment_slow_seconds)


def _stripe(settings: Settings, clock: Clock) -> Provider:
    from functions.payments import stripe_provider  # only where it is the provider
    from functions.payments.stripe_api import StripeApi

    key = secret(settings, "stripe_api_key")
    if not key:
        raise SettingsError("STRIPE_API_KEY: is needed for PAYMENT_PROVIDER=stripe, or STRIPE_API_KEY_FILE")
    if settings.shop_env == "production" and key.startswith(_TEST_KEYS):
        raise SettingsError(
            "STRIPE_API_KEY: is a test key, which charges nobody; production needs a live one"
        )
    # A charge, a void or a refund is two calls as a rule.
    api = StripeApi(key, settings.stripe_api_base, settings.payment_timeout / 2)
    # Under the ledger's name, so that a change of the provider needs no table.
    books = factories.open_store(settings, "payments-ledger", stripe_provider.MAPPINGS, clock)
    return stripe_provider.StripeProvider(api, books, clock)


def open_webhook(settings: Settings) -> Webhook | None:
    """The webhook of the provider; None where it has none, or no secret to know it by."""
    signing = secret(settings, "stripe_webhook_secret") if settings.payment_provider == "stripe" else ""
    if not signing:
        return None
    from functions.payments.stripe_webhook import StripeWebhook  # only where it is the provider

    return StripeWebhook(signing)


def _services(desk: Desk) -> list[RpcService]:
    from functions.payments.rpc import ACCESS, Payments  # gRPC only where its door opens
    from proto.shop.payments.v1.payments_pb2_grpc import add_PaymentsServiceServicer_to_server

    return [
        RpcService(
            add_PaymentsServiceServicer_to_server, Payments(desk), "shop.payments.v1.PaymentsService", ACCESS
        )
    ]
