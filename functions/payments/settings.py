"""Settings of the payments service."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings

Seconds = Annotated[float, Meta(ge=0, le=300)]


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """Settings that only payments reads."""

    SECRETS = (*RuntimeSettings.SECRETS, "stripe_api_key", "stripe_webhook_secret")

    payment_timeout: Seconds = 10.0
    """Seconds for one call to the provider. Together with the call to orders, it must stay below the 60 s of an event.
    """
    payment_slow_seconds: Seconds = 2.0
    """How long the simulated provider takes for `tok_slow`."""
    payment_settle_after: Seconds = 15.0
    """The sweep retries a payment that has been pending for longer than this."""
    stripe_api_key: str = ""
    """The secret key of Stripe's API."""
    stripe_api_key_file: str = ""
    """A file with that key."""
    stripe_webhook_secret: str = ""
    """The signing secret of the endpoint `/v1/webhooks/stripe`. If it is empty, the endpoint accepts nothing."""
    stripe_webhook_secret_file: str = ""
    """A file with that secret."""
    stripe_api_base: Annotated[str, Meta(pattern=r"^https?://")] = "https://api.stripe.com"
    """The address of Stripe's API."""
