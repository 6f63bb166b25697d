"""Settings of the notifications service."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """Settings that only notifications reads."""

    SECRETS = (*RuntimeSettings.SECRETS, "mail_events_secret")

    mail_channel: Literal["auto", "mailbox", "smtp", "ses"] = "auto"
    """How e-mail is sent. `auto` means SMTP if SMTP_URL is set. Otherwise messages are only in the API's mailbox, which
    production refuses.
    """
    smtp_url: str = ""
    """`smtp://user:password@host:port` or `smtps://...`. `?starttls=1` requires TLS, `?starttls=0` disables it. By
    default TLS is used if the server offers it; production requires it.
    """
    smtp_url_file: str = ""
    """A file with that URL."""
    ses_region: str = ""
    """The region of Amazon SES; boto3's (AWS_REGION) if empty. SES is called with the pod's own role."""
    ses_endpoint: str = ""
    """The endpoint of Amazon SES; boto3's if empty."""
    ses_configuration_set: str = ""
    """The configuration set whose bounces and complaints are reported back."""
    mail_events_secret: str = ""
    """The value of `X-Api-Key` that `/v1/webhooks/ses` accepts. If it is empty, the endpoint accepts nothing."""
    mail_events_secret_file: str = ""
    """A file with that secret."""
    mail_from: str = "shop@shop.local"
    """The sender: an address, or a name and an address (`The Shop <shop@example.com>`)."""
    mail_reply_to: str = ""
    """The address for replies, in the same form."""
    unverified_mails_per_day: Annotated[int, Meta(ge=1, le=100)] = 10
    """Maximum number of mails in 24 hours to an unverified address, not counting mails with codes."""
    mail_timeout: Annotated[float, Meta(gt=0, le=45)] = 15.0
    """Maximum seconds for sending one mail."""
