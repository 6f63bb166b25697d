"""Settings from the environment: read once, validated once, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Meta

Port = Annotated[int, Meta(ge=0, le=65535)]


class SettingsError(ValueError):
    """A variable is missing or wrong; the message names it and never shows its value."""


class RuntimeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of every part. A field's variable is its name in upper case. docs/configuration.md is generated from
    them.
    """

    SECRETS: ClassVar[tuple[str, ...]] = ("service_key", "store_password")
    """Names of secret fields. `functions.runtime.credentials` checks each, or the file that its `_file` field names, at
    start.
    """

    shop_env: Literal["development", "production"] = "development"
    """In `production` gRPC reflection is off, and a part refuses to start with a secret that is missing, an example,
    shorter than 16 characters, a test key of Stripe, or created by `make up`.
    """
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The minimum level of log lines."""
    role: Literal["all", "rpc", "events"] = "all"
    """What this process serves: gRPC, events, or both."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: Port | None = None
    """The port of this role's server. Knative sets it; it overrides HTTP_PORT and GRPC_PORT."""
    http_port: Port = 0
    """The port for events, probes and metrics. 0 means any free port."""
    grpc_port: Port = 0
    """The port for gRPC. 0 means any free port."""
    metrics_port: Port | None = None
    """An additional port for metrics, in every role. 0 means any free port. If it is not set, metrics are only at
    /metrics of the HTTP port.
    """
    metrics_hold_seconds: Annotated[float, Meta(ge=0, le=300)] = 20.0
    """How long to wait at shutdown for a last scrape. It exceeds the interval of scrapes, which is 15 s."""
    store_url: str = "sqlite:///.data"
    """Where state is stored. `sqlite:///folder`: a file for each domain (four slashes for an absolute path).
    `postgresql://host:5432/database?sslmode=verify-full&sslrootcert=/ca.crt`: a schema for each domain, which `make
    migrate` creates. Without a user, a domain connects as `shop_<domain>`. Several hosts (`a,b:5432`) are tried in
    turn; further parameters are `sslcert`, `sslkey`, `host` (a socket's folder), `target_session_attrs`, and
    `pool_size`, the maximum number of connections of a process (4).
    `dynamodb://prefix?endpoint=http://host:port&region=eu-central-1`: a table for each domain. Everything after the
    colon is optional; the default prefix is `shop-`, and boto3 determines endpoint and region. In development missing
    tables are created. `memory:`: for tests.
    """
    store_password: str = ""
    """The password for PostgreSQL."""
    store_password_file: str = ""
    """A file with that password, if STORE_PASSWORD is empty. It is read for each new connection, so a rotated password
    needs no restart."""
    broker_url: str = "http://127.0.0.1:8090/shop/default"
    """The URL to which events are posted."""
    broker_token_file: str = ""
    """A file with the token for the broker, if Knative authenticates publishers. If it is empty, no token is sent."""
    users_address: str = "127.0.0.1:9081"
    orders_address: str = "127.0.0.1:9082"
    products_address: str = "127.0.0.1:9083"
    payments_address: str = "127.0.0.1:9084"
    notifications_address: str = "127.0.0.1:9085"
    payment_provider: Literal["simulated", "stripe"] = "simulated"
    """The payment provider. Payments calls it; products and orders refuse amounts that it cannot charge."""
    service_key: str = ""
    """The Ed25519 private key (PEM) that signs this service's calls and events."""
    service_key_file: str = ".data/secrets/service.pem"
    """A file with that key, if SERVICE_KEY is empty."""
    service_keys: str = ""
    """The public keys of all services, as a JWKS."""
    service_keys_file: str = ".data/secrets/service-keys/jwks.json"
    """A file with that JWKS, if SERVICE_KEYS is empty."""
    event_signatures: Literal["required", "optional"] = "required"
    """`optional` accepts events without a signature, during an upgrade from a release that did not sign them."""
    token_issuer: str = "https://shop.local"  # noqa: S105 - a name, not a secret
    """`iss` of access tokens and service tokens."""
    token_audience: str = "shop"  # noqa: S105 - a name, not a secret
    """`aud` of access tokens."""
    drain_seconds: Annotated[float, Meta(ge=0, le=300)] = 10.0
    """How long running work may take after SIGTERM."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shop_env={self.shop_env!r}, ...)"  # the rest may hold secrets


S = TypeVar("S", bound=msgspec.Struct)


def load(cls: type[S], environ: Mapping[str, str]) -> S:
    """Build `cls` from the environment. A field's variable is its name in upper case.

    An empty variable counts as unset. Raises SettingsError, which names the variable that is missing or wrong.
    """
    given = {name: environ[name.upper()] for name in cls.__struct_fields__ if environ.get(name.upper())}
    try:
        return msgspec.convert(given, cls, strict=False)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$.")
        raise SettingsError(f"{path.rstrip('`').upper() or cls.__name__}: {text}") from None
