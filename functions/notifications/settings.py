"""Settings of the notifications service."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from functions.runtime.settings import RuntimeSettings


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    """What only notifications reads.

    `mail_channel`: `auto` is SMTP where SMTP_URL is set, else the mailbox. `smtp_url`:
    `smtp://user:password@host:port` with `?starttls=1` to insist on TLS, `?starttls=0` to go without (by
    default it is taken when offered; production always insists), or `smtps://...`. `mail_timeout` bounds one
    sending, in seconds, within the 60 s of an event. `mail_from` and `mail_reply_to` are addresses, or a name and
    an address: `The Shop <shop@example.com>`. An address that nobody has verified gets at most
    `unverified_mails_per_day` mails in 24 hours, codes aside.
    SES is reached with the pod's own role; `ses_region` and `ses_endpoint` are boto3's (AWS_REGION) unless given,
    `ses_configuration_set` is the one whose bounces and complaints come back to us, by callers who show
    `mail_events_secret` (from its file, or from the variable itself).
    """

    SECRETS = (*RuntimeSettings.SECRETS, "mail_events_secret")

    mail_channel: Literal["auto", "mailbox", "smtp", "ses"] = "auto"
    smtp_url: str = ""
    smtp_url_file: str = ""
    ses_region: str = ""
    ses_endpoint: str = ""
    ses_configuration_set: str = ""
    mail_events_secret: str = ""
    mail_events_secret_file: str = ""
    mail_from: str = "shop@shop.local"
    mail_reply_to: str = ""
    unverified_mails_per_day: Annotated[int, Meta(ge=1, le=100)] = 10
    mail_timeout: Annotated[float, Meta(gt=0, le=45)] = 15.0
