"""The composition root of the users service."""

from __future__ import annotations

from typing import NamedTuple

from functions.runtime.app import Function, Hook, RpcService
from functions.runtime.clock import Clock, SystemClock
from functions.runtime.errors import ServiceError
from functions.runtime.factories import event_signer, event_verifier, open_store, token_verifier
from functions.runtime.settings import SettingsError
from functions.runtime.store.port import Store
from functions.runtime.tokens import TokenVerifier
from functions.users.auth.authenticator import PasswordAuthenticator
from functions.users.auth.devices import DeviceTokens
from functions.users.auth.email_change import EmailChangeService
from functions.users.auth.passwords import PasswordHasher
from functions.users.auth.recovery import RecoveryService
from functions.users.auth.sessions import SessionsService
from functions.users.auth.signing_keys import SigningKeysService
from functions.users.auth.throttle import Throttle, ThrottleLimits
from functions.users.auth.tokens import AccessTokens
from functions.users.service import UsersService
from functions.users.settings import Settings
from functions.users.store import MAPPINGS
from functions.users.subscriptions import subscriptions


class Services(NamedTuple):
    """The use cases of the users service."""

    users: UsersService
    sessions: SessionsService
    recovery: RecoveryService
    email_changes: EmailChangeService
    keys: SigningKeysService


def bootstrap(
    settings: Settings, *, store: Store | None = None, clock: Clock | None = None, verifier: TokenVerifier | None = None
) -> Function:
    """Compose the users service. An argument replaces the collaborator that the settings describe."""
    clock = clock or SystemClock()
    store = store or open_store(settings, "users", MAPPINGS, clock)
    hasher = make_hasher(settings)
    services = compose(settings, store, hasher, clock)

    def rpc_services() -> list[RpcService]:
        from functions.users.rpc import ACCESS, UsersServicer  # imports gRPC, which only this role needs
        from proto.shop.users.v1.users_pb2_grpc import add_UsersServiceServicer_to_server

        servicer = UsersServicer(
            services.users,
            services.sessions,
            services.recovery,
            services.email_changes,
            services.keys,
            client_address_header=settings.client_address_header.lower(),
        )
        return [RpcService(add_UsersServiceServicer_to_server, servicer, "shop.users.v1.UsersService", ACCESS)]

    return Function(
        name="users",
        settings=settings,
        store=store,
        services=rpc_services,
        subscriptions=subscriptions(services.users, services.keys),
        # The verifier reads the keys directly: the service does not call itself over the network.
        verifier=verifier or token_verifier(settings, "users", services.keys.key_set, clock),
        clock=clock,
        signer=event_signer(settings, "users"),
        signatures=event_verifier(settings, "users"),
        on_start=_start_hooks(settings, services),
        on_stop=[hasher.close],
    )


def compose(settings: Settings, store: Store, hasher: PasswordHasher, clock: Clock) -> Services:
    """Compose the use cases from their collaborators."""
    limits = ThrottleLimits(
        failures_per_address=settings.login_failures_per_address,
        failures_per_account=settings.login_failures_per_account,
        registrations_per_address=settings.registrations_per_address,
        registrations_in_all=settings.registrations_in_all,
    )
    throttle = Throttle(store, clock, limits)
    devices = DeviceTokens(store, clock)
    authenticator = PasswordAuthenticator(store, hasher, throttle, devices, clock)
    keys = SigningKeysService(store, clock)
    tokens = AccessTokens(keys, settings.token_issuer, settings.token_audience, clock)
    users = UsersService(
        store, hasher, authenticator, throttle, clock, hide_account_existence=settings.registration == "private"
    )
    return Services(
        users=users,
        sessions=SessionsService(store, authenticator, tokens, devices, clock),
        recovery=RecoveryService(store, hasher, throttle, clock),
        email_changes=EmailChangeService(store, clock),
        keys=keys,
    )


def make_hasher(settings: Settings) -> PasswordHasher:
    """Return the password hasher that the settings describe. Its threads start with the first hash."""
    return PasswordHasher(
        time_cost=settings.argon2_time_cost,
        memory_kib=settings.argon2_memory_kib,
        concurrency=settings.hash_concurrency,
        queue=settings.hash_queue,
    )


def _start_hooks(settings: Settings, services: Services) -> list[Hook]:
    async def ensure_keys() -> None:
        await services.keys.ensure()

    async def ensure_admin() -> None:
        email, password = settings.admin_email, settings.admin_password
        if not email and not password:
            return
        if not email or not password:
            raise SettingsError("ADMIN_EMAIL, ADMIN_PASSWORD: must be given together")
        try:
            await services.users.ensure_admin(email, password)
        except ServiceError as error:
            if not error.violations:
                raise
            text = "; ".join(f"ADMIN_{violation.field.upper()}: {violation.message}" for violation in error.violations)
            raise SettingsError(text) from None

    return [ensure_keys, ensure_admin]
