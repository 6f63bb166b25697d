"""The composition root of the users service."""

from __future__ import annotations

from functions.runtime.app import Function, Hook, RpcService
from functions.runtime.clock import Clock, SystemClock
from functions.runtime.errors import ServiceError
from functions.runtime.factories import event_signer, event_verifier, open_store, token_verifier
from functions.runtime.settings import SettingsError
from functions.runtime.store.port import Store
from functions.runtime.tokens import TokenVerifier
from functions.users import service
from functions.users.devices import Devices
from functions.users.keys import KeyRing
from functions.users.passwords import Hasher
from functions.users.proof import Proof
from functions.users.settings import Settings
from functions.users.store import MAPPINGS
from functions.users.subscriptions import subscriptions
from functions.users.throttle import Limits, Throttle
from functions.users.tokens import AccessTokens


def bootstrap(
    settings: Settings,
    *,
    store: Store | None = None,
    clock: Clock | None = None,
    verifier: TokenVerifier | None = None,
) -> Function:
    """The users service as `settings` want it; what is passed in replaces the real thing."""
    clock = clock or SystemClock()
    store = store or open_store(settings, "users", MAPPINGS, clock)
    keys = KeyRing(store, clock)
    hasher = _hasher(settings)
    throttle = Throttle(store, clock, _limits(settings))
    devices = Devices(store, clock)
    proof = Proof(store, hasher, throttle, devices, clock)
    tokens = AccessTokens(keys, settings.token_issuer, settings.token_audience, clock)

    def services() -> list[RpcService]:
        from functions.users.rpc import ACCESS, Users  # gRPC only where its door opens
        from proto.shop.users.v1.users_pb2_grpc import add_UsersServiceServicer_to_server

        servicer = Users(
            store=store,
            hasher=hasher,
            keys=keys,
            tokens=tokens,
            proof=proof,
            throttle=throttle,
            devices=devices,
            clock=clock,
            discreet=settings.registration == "private",
            address_header=settings.client_address_header.lower(),
        )
        return [
            RpcService(add_UsersServiceServicer_to_server, servicer, "shop.users.v1.UsersService", ACCESS)
        ]

    return Function(
        name="users",
        settings=settings,
        store=store,
        services=services,
        subscriptions=subscriptions(store=store, keys=keys, clock=clock),
        # By its own keys: no call to itself over the network.
        verifier=verifier or token_verifier(settings, "users", keys.key_set, clock),
        clock=clock,
        signer=event_signer(settings, "users"),
        signatures=event_verifier(settings, "users"),
        on_start=_first_start(settings, store, keys, hasher, clock),
        on_stop=[hasher.close],
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        failures_per_address=settings.login_failures_per_address,
        failures_per_account=settings.login_failures_per_account,
        registrations_per_address=settings.registrations_per_address,
        registrations_in_all=settings.registrations_in_all,
    )


def _hasher(settings: Settings) -> Hasher:
    return Hasher(
        time_cost=settings.argon2_time_cost,
        memory_kib=settings.argon2_memory_kib,
        concurrency=settings.hash_concurrency,
        queue=settings.hash_queue,
    )


def _first_start(settings: Settings, store: Store, keys: KeyRing, hasher: Hasher, clock: Clock) -> list[Hook]:
    async def make_keys() -> None:
        await keys.ready()

    async def make_admin() -> None:
        email, password = settings.admin_email, settings.admin_password
        if not email and not password:
            return
        if not email or not password:
            raise SettingsError("ADMIN_EMAIL, ADMIN_PASSWORD: must be given together")
        try:
            await service.ensure_admin(email, password, store=store, hasher=hasher, clock=clock)
        except ServiceError as error:
            if not error.violations:
                raise
            text = "; ".join(
                f"ADMIN_{violation.field.upper()}: {violation.message}" for violation in error.violations
            )
            raise SettingsError(text) from None

    return [make_keys, make_admin]
