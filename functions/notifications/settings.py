"""Settings of the notifications service."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """What only notifications reads.

    `mail_channel`: `auto` is SMTP where SMTP_URL is set, else the mailbox. `smtp_url`:
    `smtp://user:password@host:port` with `?starttls=1` to insist on TLS, `?starttls=0` to go without (by
    default it is taken when offered), or `smtps://...`. `mail_timeout` bounds one sending, in seconds,
    within the 60 s of an event. SES is reached with the pod's own role; `ses_region` and `ses_endpoint` are boto3's
    (AWS_REGION) unless given, `ses_configuration_set` is the one whose bounces and complaints come back to us,
    by callers who show `mail_events_secret` (from its file, or from the variable itself).
    """

    SECRETS = (*RuntimeSettings.SECRETS, "mail_events_secret")

    mail_channel: Literal["auto", "mailbox", "smtp", "ses"] = "auto"
    smtp_url: str = ""
    ses_region: str = ""
    ses_endpoint: str = ""
    ses_configuration_set: str = ""
    mail_events_secret: str = ""
    mail_events_secret_file: str = ""
    mail_from: Annotated[str, Meta(pattern=r"^[^\s@<>]+@[^\s@<>]+$")] = "shop@shop.local"
    mail_timeout: Annotated[float, Meta(gt=0, le=45)] = 15.0
