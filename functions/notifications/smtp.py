"""Mail over SMTP (RFC 5321), one connection a message."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from functions.notifications.channels import Bounced, Mail, Refused, mail_unavailable
from functions.notifications.mime import compose
from functions.runtime.breaker import Breaker
from functions.runtime.errors import ServiceError
from functions.runtime.settings import SettingsError

if TYPE_CHECKING:
    from email.message import EmailMessage

    from aiosmtplib import SMTP

log = logging.getLogger("shop.notifications")

AT_ONCE = 8
_PORTS = {"smtp": 25, "smtps": 465}
_STARTTLS = {"": None, "1": True, "0": False}
# Enhanced status codes (RFC 3463) that blame the message or a passing state, not the address: 5.2.2 mailbox full, 5.2.3
# too long, 5.3 mail system, 5.6 content, 5.7 policy.
_NOT_THE_ADDRESS = ("5.2.2", "5.2.3", "5.3.", "5.6.", "5.7.")


@dataclass(frozen=True)
class Server:
    """Where mail is handed in. `starttls`: True insists, None takes it when offered."""

    host: str
    port: int
    tls: bool
    starttls: bool | None
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


def parse_url(url: str) -> Server:
    """The server that SMTP_URL names. Raises SettingsError, which never shows the value."""
    try:
        return _parse(url)
    except (KeyError, ValueError):
        raise SettingsError(
            "SMTP_URL: must be smtp://user:password@host:port?starttls=1 or smtps://..."
        ) from None


def _parse(url: str) -> Server:
    parts = urlsplit(url)
    starttls = _STARTTLS[parse_qs(parts.query).get("starttls", [""])[0]]
    port = _PORTS[parts.scheme]
    if not parts.hostname:
        raise ValueError("no host")
    return Server(
        host=parts.hostname,
        port=parts.port or (587 if starttls else port),
        tls=parts.scheme == "smtps",
        starttls=starttls,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


class SmtpChannel:
    """See Channel. `sender` is the address that mail comes from, `seconds` bounds one sending."""

    name = "smtp"
    needs_address = True

    def __init__(self, server: Server, sender: str, seconds: float) -> None:
        self._server = server
        self._sender = sender
        self._seconds = seconds
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._breaker = Breaker("smtp")

    async def send(self, mail: Mail) -> None:
        """See Channel."""
        message = compose(mail, self._sender)
        await self._breaker.call(lambda: self._in_time(message, mail.address))

    async def _in_time(self, message: EmailMessage, address: str) -> None:
        try:
            async with asyncio.timeout(self._seconds), self._turns:
                await self._hand_in(message, address)
        except TimeoutError:
            raise _passing("timeout") from None

    async def _hand_in(self, message: EmailMessage, address: str) -> None:
        from aiosmtplib import errors

        try:
            async with self._client() as client:
                await client.send_message(message, sender=self._sender, recipients=[address])
        except errors.SMTPRecipientsRefused as refused:
            raise _refusal(refused.recipients[0].code, refused.recipients[0].message) from None
        except (errors.SMTPDataError, errors.SMTPSenderRefused) as refused:
            raise _passing(str(refused.code)) if refused.code < 500 else Refused("MESSAGE_REFUSED") from None
        except errors.SMTPNotSupported:
            raise Refused("NOT_SUPPORTED_BY_SERVER") from None
        except (errors.SMTPException, OSError) as error:
            # Ours to mend (a password, a certificate) or passing: never the person's fault, so it is tried again.
            raise _passing(type(error).__name__) from None

    def _client(self) -> SMTP:
        from aiosmtplib import SMTP

        server = self._server
        return SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.tls,
            start_tls=False if server.tls else server.starttls,
            timeout=self._seconds,
        )


def _refusal(code: int, text: str) -> Exception:
    """What the server's refusal of a recipient means; its text may hold the address and goes no further."""
    if code < 500:
        return _passing(str(code))
    return Refused("MESSAGE_REFUSED") if text.startswith(_NOT_THE_ADDRESS) else Bounced()


def _passing(what: str) -> ServiceError:
    log.warning("smtp_unavailable", extra={"error": what})
    return mail_unavailable()
