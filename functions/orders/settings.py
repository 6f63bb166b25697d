"""The settings of the orders service."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """Settings that only orders reads."""

    orders_per_hour: Annotated[int, Meta(ge=0)] = 60
    """Orders of an account without history. Its budgets grow with its paid orders, up to ten times; so do those of its
    device. 0: no bound, as for all of these."""
    declines_per_hour: Annotated[int, Meta(ge=0)] = 10
    """Declined payments of an account without history."""
    unpaid_orders: Annotated[int, Meta(ge=0, le=20)] = 10
    """Orders of an account without history that are not paid yet."""
    orders_per_hour_per_device: Annotated[int, Meta(ge=0)] = 300
    """Orders from one device, whatever the account. A device is known by the device token that it showed at login."""
    declines_per_hour_per_device: Annotated[int, Meta(ge=0)] = 30
    """Declined payments from one device."""
    unpaid_orders_per_device: Annotated[int, Meta(ge=0, le=40)] = 30
    """Orders from one device that are not paid yet."""
    orders_per_hour_per_address: Annotated[int, Meta(ge=0)] = 600
    """Orders from one network address (IPv6: a /64), whatever account and device."""
    declines_per_hour_per_address: Annotated[int, Meta(ge=0)] = 60
    """Declined payments from one network address."""
    unpaid_orders_per_address: Annotated[int, Meta(ge=0, le=800)] = 200
    """Orders from one network address that are not paid yet."""
    unpaid_stock_share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """The share of a product's stock that unpaid orders of an account without history, or of its device, may hold."""
    unpaid_stock_share_per_address: Annotated[float, Meta(ge=0, le=1)] = 0.75
    """The share of a product's stock that unpaid orders from one network address may hold."""
    unpaid_pieces: Annotated[int, Meta(ge=1)] = 5
    """Pieces of a product that unpaid orders may hold whatever their share of its stock."""
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
