"""Settings of the payments service."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings

Seconds = Annotated[float, Meta(ge=0, le=300)]


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """What only payments reads.

    `payment_timeout` bounds each call to the provider; it and the call to orders stay well within the 60
    s that an event may take. `payment_slow_seconds` is how long the simulated provider thinks about
    `tok_slow`. What is pending for longer than `payment_settle_after` is taken up by the sweep.
    """

    payment_provider: Literal["simulated", "stripe"] = "simulated"
    payment_timeout: Seconds = 10.0
    payment_slow_seconds: Seconds = 2.0
    payment_settle_after: Seconds = 15.0
