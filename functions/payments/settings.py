"""Settings of the payments service."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings

Seconds = Annotated[float, Meta(ge=0, le=300)]


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """What only payments reads.

    `payment_timeout` bounds each call to the provider; it and the call to orders stay well within the 60
    s that an event may take. `payment_slow_seconds` is how long the simulated provider thinks about
    `tok_slow`. What is pending for longer than `payment_settle_after` is taken up by the sweep. Stripe's secrets come
    from a file (a mounted Secret) or from the variable itself.
    """

    SECRETS = (*RuntimeSettings.SECRETS, "stripe_api_key", "stripe_webhook_secret")

    payment_timeout: Seconds = 10.0
    payment_slow_seconds: Seconds = 2.0
    payment_settle_after: Seconds = 15.0
    stripe_api_key: str = ""
    stripe_api_key_file: str = ""
    stripe_webhook_secret: str = ""
    stripe_webhook_secret_file: str = ""
    stripe_api_base: Annotated[str, Meta(pattern=r"^https?://")] = "https://api.stripe.com"
