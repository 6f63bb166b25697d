"""The settings of the orders service."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """Settings that only orders reads."""

    orders_per_hour: Annotated[int, Meta(ge=0)] = 60
    """Orders of an account without history. All three budgets grow with its paid orders, up to ten times. 0: no
    bound."""
    declines_per_hour: Annotated[int, Meta(ge=0)] = 10
    """Declined payments of an account without history. 0: no bound."""
    unpaid_orders: Annotated[int, Meta(ge=0, le=20)] = 10
    """Orders of an account without history that are not paid yet. 0: no bound."""
    orders_per_hour_per_address: Annotated[int, Meta(ge=0)] = 600
    """Orders from one network address (IPv6: a /64), whatever the account. 0: no bound."""
    declines_per_hour_per_address: Annotated[int, Meta(ge=0)] = 60
    """Declined payments from one network address. 0: no bound."""
    client_address_header: str = ""
    """The header that the ingress overwrites with a gRPC client's address. Empty: there is none."""
    order_timeout_seconds: Annotated[int, Meta(ge=1)] = 900
    """Cancel an order that has not moved for this long before it is confirmed."""
    watch_poll_seconds: Annotated[float, Meta(ge=0.01, le=60)] = 0.5
    """How late a stream may learn of a change that another process made."""
    watch_limit: Annotated[int, Meta(ge=1, le=1500)] = 1000
    """WatchOrder streams of one process. Each takes one of the 2,000 calls that a gRPC server accepts at once."""
    watch_limit_each: Annotated[int, Meta(ge=1, le=1500)] = 20
    """WatchOrder streams of one person, like the gateway's MAX_STREAMS_EACH."""
