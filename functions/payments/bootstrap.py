"""The composition root of the payments service."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from functions.payments.clients import Orders, OrdersClient
from functions.payments.metrics import EVENT_METRICS
from functions.payments.providers import simulated
from functions.payments.providers.port import PaymentProvider, TimeLimitedProvider, Webhook
from functions.payments.refunds import RefundsService
from functions.payments.service import PaymentsService
from functions.payments.settings import Settings
from functions.payments.store import MAPPINGS
from functions.payments.subscriptions import subscriptions
from functions.runtime import factories
from functions.runtime.app import Function, Hook, RpcService
from functions.runtime.clock import Clock, SystemClock
from functions.runtime.credentials import secret
from functions.runtime.currencies import PROVIDERS
from functions.runtime.settings import SettingsError
from functions.runtime.store.port import Store
from functions.runtime.tokens import TokenVerifier

_TEST_KEYS = ("sk_test_", "rk_test_")
_LEDGER = "payments-ledger"
"""The name of the store for the provider's records. All providers use it, so another provider needs no new table."""


def bootstrap(
    settings: Settings,
    *,
    store: Store | None = None,
    clock: Clock | None = None,
    provider: PaymentProvider | None = None,
    orders: Orders | None = None,
    verifier: TokenVerifier | None = None,
) -> Function:
    """Compose the service. An argument replaces the collaborator that would be built from the settings."""
    clock = clock or SystemClock()
    on_stop: list[Hook] = []
    if provider is None:
        provider = open_provider(settings, clock)
        on_stop.append(provider.close)
    if orders is None:
        address = settings.orders_address
        client = factories.service_client(settings, "payments", "orders", address, clock, on_stop)
        orders = OrdersClient(client)
    verifier = verifier or factories.remote_verifier(settings, "payments", clock, on_stop)
    store = store or factories.open_store(settings, "payments", MAPPINGS, clock)
    settle_after = timedelta(seconds=settings.payment_settle_after)
    limits = PROVIDERS[settings.payment_provider]
    refunds = RefundsService(store, provider, clock, settle_after=settle_after, limits=limits)
    webhook = open_webhook(settings)
    payments = PaymentsService(store, provider, orders, refunds, clock, settle_after=settle_after, webhook=webhook)
    return Function(
        name="payments",
        settings=settings,
        store=store,
        services=partial(_services, payments, refunds),
        subscriptions=subscriptions(payments),
        verifier=verifier,
        clock=clock,
        signer=factories.event_signer(settings, "payments"),
        signatures=factories.event_verifier(settings, "payments"),
        event_metrics=EVENT_METRICS,
        on_stop=on_stop,
    )


def open_provider(settings: Settings, clock: Clock) -> PaymentProvider:
    """Open the provider that PAYMENT_PROVIDER names. Raises SettingsError if it cannot be used."""
    is_stripe = settings.payment_provider == "stripe"
    if not is_stripe and settings.shop_env == "production":
        raise SettingsError("PAYMENT_PROVIDER: simulated charges nobody; production needs stripe")
    provider = _stripe(settings, clock) if is_stripe else _simulated(settings, clock)
    return TimeLimitedProvider(provider, settings.payment_timeout)


def _simulated(settings: Settings, clock: Clock) -> PaymentProvider:
    ledger = factories.open_store(settings, _LEDGER, simulated.MAPPINGS, clock)
    return simulated.SimulatedProvider(ledger, clock, settings.payment_slow_seconds)


def _stripe(settings: Settings, clock: Clock) -> PaymentProvider:
    # Imported only if Stripe is the provider.
    from functions.payments.providers.stripe_api import StripeApi
    from functions.payments.providers.stripe_provider import MAPPINGS, StripeProvider

    key = secret(settings, "stripe_api_key")
    if not key:
        raise SettingsError("STRIPE_API_KEY: is needed for PAYMENT_PROVIDER=stripe, or STRIPE_API_KEY_FILE")
    if settings.shop_env == "production" and key.startswith(_TEST_KEYS):
        raise SettingsError("STRIPE_API_KEY: is a test key, which charges nobody; production needs a live one")
    # A charge, a void or a refund usually takes two calls.
    api = StripeApi(key, settings.stripe_api_base, settings.payment_timeout / 2)
    return StripeProvider(api, factories.open_store(settings, _LEDGER, MAPPINGS, clock), clock)


def open_webhook(settings: Settings) -> Webhook | None:
    """Return the provider's webhook, or None if the provider has none or its signing secret is not set."""
    signing = secret(settings, "stripe_webhook_secret") if settings.payment_provider == "stripe" else ""
    if not signing:
        return None
    from functions.payments.providers.stripe_webhook import StripeWebhook  # imported only if it is used

    return StripeWebhook(signing)


def _services(payments: PaymentsService, refunds: RefundsService) -> list[RpcService]:
    from functions.payments.rpc import ACCESS, PaymentsServicer  # ROLE=events must not import gRPC
    from proto.shop.payments.v1.payments_pb2_grpc import add_PaymentsServiceServicer_to_server

    servicer = PaymentsServicer(payments, refunds)
    name = "shop.payments.v1.PaymentsService"
    return [RpcService(add_PaymentsServiceServicer_to_server, servicer, name, ACCESS)]
