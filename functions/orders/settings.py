"""The settings of the orders service."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """Settings that only orders reads."""

    orders_per_hour: Annotated[int, Meta(ge=0)] = 60
    """Maximum number of orders of a new account in an hour. This limit and the following two grow with the account's
    paid orders, up to ten times, and so do those of its device. For all limits of orders, 0 means no limit.
    """
    declines_per_hour: Annotated[int, Meta(ge=0)] = 10
    """Maximum number of declined payments of a new account in an hour."""
    unpaid_orders: Annotated[int, Meta(ge=0, le=20)] = 10
    """Maximum number of unpaid orders of a new account."""
    orders_per_hour_per_device: Annotated[int, Meta(ge=0)] = 300
    """Maximum number of orders from one device in an hour, whatever the account. A device is identified by its device
    token at login.
    """
    declines_per_hour_per_device: Annotated[int, Meta(ge=0)] = 30
    """Maximum number of declined payments from one device in an hour."""
    unpaid_orders_per_device: Annotated[int, Meta(ge=0, le=40)] = 30
    """Maximum number of unpaid orders from one device."""
    orders_per_hour_per_address: Annotated[int, Meta(ge=0)] = 600
    """Maximum number of orders from one network address (IPv6: a /64) in an hour, whatever account and device."""
    declines_per_hour_per_address: Annotated[int, Meta(ge=0)] = 60
    """Maximum number of declined payments from one network address in an hour."""
    unpaid_orders_per_address: Annotated[int, Meta(ge=0, le=800)] = 200
    """Maximum number of unpaid orders from one network address."""
    unpaid_stock_share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """The share of a product's stock that unpaid orders of a new account, or of its device, may hold."""
    unpaid_stock_share_per_address: Annotated[float, Meta(ge=0, le=1)] = 0.75
    """The share of a product's stock that unpaid orders from one network address may hold."""
    unpaid_pieces: Annotated[int, Meta(ge=1)] = 5
    """The pieces of a product that unpaid orders may always hold, even if that exceeds the share of its stock."""
    client_address_header: str = ""
    """The header that the ingress sets to the address of a gRPC client; it overwrites any value from the client. Empty:
    none.
    """
    order_timeout_seconds: Annotated[int, Meta(ge=1)] = 900
    """An order that is not confirmed is cancelled if its status has not changed for this long."""
    watch_poll_seconds: Annotated[float, Meta(ge=0.01, le=60)] = 0.5
    """Maximum delay until a stream sees a change by another process."""
    watch_limit: Annotated[int, Meta(ge=1, le=1500)] = 1000
    """Maximum number of WatchOrder streams of one process. Each uses one of the 2,000 calls that a gRPC server accepts
    at once.
    """
    watch_limit_each: Annotated[int, Meta(ge=1, le=1500)] = 20
    """Maximum number of WatchOrder streams of one person, like the gateway's MAX_STREAMS_EACH."""
