"""The variables that only the orders service reads."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """`order_timeout_seconds`: an order that has not moved for so long before CONFIRMED is cancelled.

    `watch_poll_seconds`: how late a watcher may learn of a change that another process made. `watch_limit`:
    how many WatchOrder streams one process serves at once; each holds one of the 2,000 calls that the
    gRPC door bears, so that many watchers must leave room for orders. `watch_limit_each`: how many of them one
    person may have, as the gateway's MAX_STREAMS_EACH.
    """

    orders_per_hour: Annotated[int, Meta(ge=0)] = 60
    """Of an account without history; budgets grow with its paid orders, to ten times. 0 sets no bound."""
    declines_per_hour: Annotated[int, Meta(ge=0)] = 10
    unpaid_orders: Annotated[int, Meta(ge=0, le=20)] = 10
    """At once."""
    orders_per_hour_per_address: Annotated[int, Meta(ge=0)] = 600
    declines_per_hour_per_address: Annotated[int, Meta(ge=0)] = 60
    client_address_header: str = ""
    """What the ingress overwrites with a client's address; wins over what a request says of it."""
    order_timeout_seconds: Annotated[int, Meta(ge=1)] = 900
    watch_poll_seconds: Annotated[float, Meta(ge=0.01, le=60)] = 0.5
    watch_limit: Annotated[int, Meta(ge=1, le=1500)] = 1000
    watch_limit_each: Annotated[int, Meta(ge=1, le=1500)] = 20
