"""The settings of the products service."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """Settings that only products reads."""

    reservation_minutes: Annotated[int, Meta(gt=15, le=24 * 60)] = 20
    """How long stock stays reserved. It must exceed ORDER_TIMEOUT_SECONDS of orders, with a margin for the events in
    between.
    """
