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
    """What every function reads; a field's variable is its name in upper case. Ports: 0 takes a free one.

    STORE_URL is one of
    - `sqlite:///folder`: a file per domain in it, which one process has to itself;
    - `dynamodb://prefix?endpoint=http://host:port&region=eu-central-1`: a table per domain, named prefix and domain.
      All after the colon may be left out: the prefix is then `shop-`, and endpoint and region are boto3's
      (AWS_ENDPOINT_URL_DYNAMODB, AWS_REGION), as the credentials always are. In development missing tables are made.
      A database without TransactWriteItems, as ScyllaDB's Alternator, is refused: state and events could not commit
      together;
    - `memory:`, for tests.
    """

    SECRETS: ClassVar[tuple[str, ...]] = ("service_key",)
    """What `functions.runtime.credentials` looks at before a start: fields, or those with `_file` behind them."""

    shop_env: Literal["development", "production"] = "development"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    role: Literal["all", "rpc", "events"] = "all"
    host: str = "127.0.0.1"
    port: Port | None = None
    http_port: Port = 0
    grpc_port: Port = 0
    metrics_port: Port | None = None
    """Metrics on a port of their own, in every role (0: any free one); none: only at the HTTP port's /metrics."""
    metrics_hold_seconds: Annotated[float, Meta(ge=0, le=300)] = 20.0
    """How long the end waits for a scrape to take the last counts: the interval of scrapes (15 s), and some."""
    store_url: str = "sqlite:///.data"
    broker_url: str = "http://127.0.0.1:8090/shop/default"
    users_address: str = "127.0.0.1:9081"
    orders_address: str = "127.0.0.1:9082"
    products_address: str = "127.0.0.1:9083"
    payments_address: str = "127.0.0.1:9084"
    notifications_address: str = "127.0.0.1:9085"
    payment_provider: Literal["simulated", "stripe"] = "simulated"
    """Who charges: payments talks to it; products and orders refuse what it cannot charge."""
    service_key: str = ""
    service_key_file: str = ".data/secrets/service.pem"
    service_keys: str = ""
    service_keys_file: str = ".data/secrets/service-keys/jwks.json"
    event_signatures: Literal["required", "optional"] = "required"
    """`optional` takes events without a signature, too: while publishers of an earlier release are still there."""
    token_issuer: str = "https://shop.local"  # noqa: S105 - a name, not a secret
    token_audience: str = "shop"  # noqa: S105 - a name, not a secret
    drain_seconds: Annotated[float, Meta(ge=0, le=300)] = 10.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shop_env={self.shop_env!r}, ...)"  # the rest may hold secrets


S = TypeVar("S", bound=msgspec.Struct)


def load(cls: type[S], environ: Mapping[str, str]) -> S:
    """Build `cls` from the variables named like its fields in upper case; an empty variable counts as unset.

    Raises SettingsError naming the variable at fault.
    """
    given = {name: environ[name.upper()] for name in cls.__struct_fields__ if environ.get(name.upper())}
    try:
        return msgspec.convert(given, cls, strict=False)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$.")
        raise SettingsError(f"{path.rstrip('`').upper() or cls.__name__}: {text}") from None
