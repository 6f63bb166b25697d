"""Settings of the products service."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """What only products reads.

    A reservation must outlast the 15 minutes after which orders gives up on an order that does not move,
    with room for the events in between.
    """

    reservation_minutes: Annotated[int, Meta(gt=15, le=24 * 60)] = 20
