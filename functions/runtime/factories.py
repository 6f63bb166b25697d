"""Factories that build, from the settings, the collaborators that every bootstrap needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from events.service_keys import InvalidKey, PrivateKey, ServiceKeys
from events.signatures import Signer, Verifier
from functions.runtime.app import Hook
from functions.runtime.clock import Clock
from functions.runtime.credentials import secret, variable
from functions.runtime.grpc_client import GrpcClient
from functions.runtime.key_set import Fetched, KeySetCache, KeySource, Revoked
from functions.runtime.settings import RuntimeSettings, SettingsError
from functions.runtime.store.base import StoreBase, TransactionSpans
from functions.runtime.store.port import EntityMapping, Store
from functions.runtime.tokens import JwtVerifier, ServiceTokens, TokenVerifier
from observability import tracing


def open_store(settings: RuntimeSettings, name: str, mappings: Sequence[EntityMapping[Any]], clock: Clock) -> Store:
    """Open the store of one domain at STORE_URL. Raises SettingsError for an unknown form of the URL."""
    store = _store(settings, name, mappings, clock)
    if tracing.enabled() and isinstance(store, StoreBase):
        store.spans = TransactionSpans(settings.store_url.partition(":")[0], name)
    return store


def _store(settings: RuntimeSettings, name: str, mappings: Sequence[EntityMapping[Any]], clock: Clock) -> Store:
    scheme, _, rest = settings.store_url.partition(":")
    if scheme == "memory":
        from functions.runtime.store.memory import MemoryStore  # import only the adapter in use

        return MemoryStore(mappings, clock)
    if scheme == "sqlite" and rest.startswith("///"):
        from functions.runtime.store.sqlite.store import SQLiteStore  # import only the adapter in use

        folder = Path(rest.removeprefix("///"))
        folder.mkdir(parents=True, exist_ok=True)
        return SQLiteStore(folder / f"{name}.db", mappings, clock)
    if scheme == "dynamodb":
        return _dynamodb_store(settings, name, mappings, clock)
    if scheme == "postgresql":
        return _postgres_store(settings, name, mappings, clock)
    raise SettingsError(
        "STORE_URL: must be sqlite:///folder, postgresql://host:port/database, dynamodb://prefix or memory:"
    )


def _dynamodb_store(
    settings: RuntimeSettings, name: str, mappings: Sequence[EntityMapping[Any]], clock: Clock
) -> Store:
    from functions.runtime.store.dynamodb.client import Connection, dynamodb_url
    from functions.runtime.store.dynamodb.store import DynamoDBStore  # import only the adapter in use

    address = dynamodb_url(settings.store_url)
    connection = Connection(address.endpoint, address.region)
    development = settings.shop_env == "development"
    return DynamoDBStore(address.prefix + name, mappings, clock, connection, create_table=development)


def _postgres_store(
    settings: RuntimeSettings, name: str, mappings: Sequence[EntityMapping[Any]], clock: Clock
) -> Store:
    from functions.runtime.store.postgres.client import Connection, postgres_url
    from functions.runtime.store.postgres.schema import role_of, schema_of
    from functions.runtime.store.postgres.store import PostgresStore  # import only the adapter in use

    address = postgres_url(settings.store_url)
    if address.password and settings.shop_env == "production":
        raise SettingsError("STORE_URL: must not contain the password in production; use STORE_PASSWORD_FILE")

    def password() -> str | None:
        return secret(settings, "store_password") or address.password

    connection = Connection(address.url, address.user or role_of(name), password, address.pool_size)
    return PostgresStore(schema_of(name), mappings, clock, connection)


def service_key(settings: RuntimeSettings, name: str) -> PrivateKey:
    """Return this service's own Ed25519 key, from SERVICE_KEY or SERVICE_KEY_FILE (PEM, PKCS #8)."""
    try:
        return PrivateKey.from_pem(name, secret(settings, "service_key"))
    except InvalidKey as error:
        raise SettingsError(f"{variable(settings, 'service_key')}: {error}") from None


def service_keys(settings: RuntimeSettings, name: str) -> ServiceKeys:
    """Return the public keys of all services, from SERVICE_KEYS or SERVICE_KEYS_FILE (a JWKS).

    Raises SettingsError if the service `name` has no key among them.
    """
    named = variable(settings, "service_keys")
    try:
        keys = ServiceKeys.parse(secret(settings, "service_keys"))
    except InvalidKey as error:
        raise SettingsError(f"{named}: {error}") from None
    if not keys.of(name):
        raise SettingsError(f"{named}: has no key of {name}")
    return keys


def event_signer(settings: RuntimeSettings, name: str) -> Signer:
    """Return the signer of the events that the service `name` sends. It reads its key when the first is sent."""
    return Signer(lambda: service_key(settings, name))


def event_verifier(settings: RuntimeSettings, name: str) -> Verifier:
    """Return the verifier of the events that the service `name` receives. The runtime reads its keys at start."""
    required = settings.event_signatures == "required"
    return Verifier(lambda: service_keys(settings, name), required=required)


def service_tokens(settings: RuntimeSettings, name: str, clock: Clock) -> ServiceTokens:
    """Return the issuer of this service's own tokens."""
    return ServiceTokens(service_key(settings, name), settings.token_issuer, clock)


def token_verifier(settings: RuntimeSettings, name: str, keys: KeySource, clock: Clock) -> TokenVerifier:
    """Return a verifier of access tokens (with `keys`) and of service tokens for `name` (with the services' keys)."""
    services = service_keys(settings, name)
    issuer, audience = settings.token_issuer, settings.token_audience
    return JwtVerifier(KeySetCache(keys, clock), services, issuer, audience, clock, name)


def service_client(
    settings: RuntimeSettings, name: str, peer: str, address: str, clock: Clock, on_stop: list[Hook]
) -> GrpcClient:
    """Return a client of the service `peer` with tokens of the service `name`, and add its `close` to `on_stop`."""
    client = GrpcClient(address, service_tokens(settings, name, clock), peer)
    on_stop.append(client.close)
    return client


def remote_verifier(settings: RuntimeSettings, name: str, clock: Clock, on_stop: list[Hook]) -> TokenVerifier:
    """Return a verifier for the service `name` with keys from the users service, and add its `close` to `on_stop`."""
    users = GrpcClient(settings.users_address)
    on_stop.append(users.close)
    return token_verifier(settings, name, remote_keys(users), clock)


def remote_keys(users: GrpcClient) -> KeySource:
    """Return a source that reads the key set and the revocations from the users service."""

    async def fetch(since: float | None, cursor: str) -> Fetched:
        from proto.shop.users.v1 import users_pb2, users_pb2_grpc  # imported only if tokens are verified

        stub = users.stub(users_pb2_grpc.UsersServiceStub)
        request = users_pb2.GetJwksRequest(cursor=cursor)
        if since is not None:
            request.revoked_since.FromMicroseconds(int(since * 1_000_000))
        answer = await users.call(stub.GetJwks, request, anonymous=True, retry=True)
        return Fetched(
            answer.jwks.json,
            [
                Revoked(each.digest, _seconds(each.revoked_at), _seconds(each.void_before))
                for each in answer.revocations
            ],
            answer.next_cursor,
            _seconds(answer.revoked_as_of),
        )

    return fetch


def _seconds(at: Any) -> float:
    micros: int = at.ToMicroseconds()
    return micros / 1_000_000
