"""Mail over SMTP (RFC 5321), over connections that stay open for the next messages."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from functions.notifications.channels.mime import compose
from functions.notifications.channels.port import Bounced, Mail, MailRefused, mail_unavailable
from functions.runtime.circuit_breaker import CircuitBreaker
from functions.runtime.credentials import weakness
from functions.runtime.errors import ServiceError
from functions.runtime.settings import SettingsError

if TYPE_CHECKING:
    import ssl
    from email.headerregistry import Address
    from email.message import EmailMessage

    from aiosmtplib import SMTP

log = logging.getLogger("shop.notifications")

MAX_CONNECTIONS = 8
IDLE_SECONDS = 30.0
REUSE_SECONDS = 5.0
"""Seconds for the first reply on a connection that was idle: its server may have vanished without closing it."""
QUIT_SECONDS = 1.0
_PORTS = {"smtp": 25, "smtps": 465}
_STARTTLS = {"1": True, "0": False}
# Enhanced status codes (RFC 3463) of failures that are caused by the message or a transient state and not by the
# address: 5.2.2 mailbox full, 5.2.3 too long, 5.3 mail system, 5.6 content, 5.7 policy.
_MESSAGE_FAULTS = ("5.2.2", "5.2.3", "5.3.", "5.6.", "5.7.")


@dataclass(frozen=True)
class SmtpServer:
    """The mail server that SMTP_URL names. STARTTLS is required if `starttls` is True, and optional if it is None."""

    host: str
    port: int
    tls: bool
    starttls: bool | None
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


def parse_url(url: str, *, production: bool = False) -> SmtpServer:
    """Return the server that SMTP_URL names.

    In production the connection is encrypted and the certificate is checked. STARTTLS is required unless the scheme is
    `smtps`.

    Raises:
        SettingsError: the URL is not valid. The message does not show it.
    """
    try:
        server = _parse(url, production)
    except (KeyError, ValueError):
        raise SettingsError("SMTP_URL: must be smtp://user:password@host:port?starttls=1 or smtps://...") from None
    if production and not (server.tls or server.starttls):
        raise SettingsError("SMTP_URL: starttls=0 is refused in production: mail carries codes for accounts")
    if production and server.password and (fault := weakness(server.password)):
        raise SettingsError(f"SMTP_URL: the password {fault}")
    return server


def _parse(url: str, production: bool) -> SmtpServer:
    parts = urlsplit(url)
    tls = parts.scheme == "smtps"
    asked = parse_qs(parts.query, keep_blank_values=True).get("starttls", [""])[0]
    starttls = _STARTTLS[asked] if asked else True if production and not tls else None
    port = _PORTS[parts.scheme]
    if not parts.hostname:
        raise ValueError("no host")
    return SmtpServer(
        host=parts.hostname,
        port=parts.port or (587 if starttls and not tls else port),
        tls=tls,
        starttls=starttls,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


class SmtpChannel:
    """See Channel. Mail comes from `sender`, replies go to `reply_to`, and sending one mail takes `seconds` at most.

    A connection that has sent a mail stays open for the next one, for at most `idle_seconds`.
    """

    name = "smtp"
    needs_address = True

    def __init__(
        self,
        server: SmtpServer,
        sender: Address,
        seconds: float,
        reply_to: Address | None = None,
        *,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._server = server
        self._sender = sender
        self._reply_to = reply_to
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._connections = asyncio.Semaphore(MAX_CONNECTIONS)
        self._idle: deque[tuple[SMTP, float]] = deque()  # with the time of the last mail, oldest first
        self._closing: asyncio.Task[None] | None = None
        self._breaker = CircuitBreaker("smtp")

    async def send(self, mail: Mail) -> None:
        message = compose(mail, self._sender, self._reply_to)
        (recipient,) = message["To"].addresses
        await self._breaker.call(lambda: self._send_in_time(message, recipient.addr_spec))

    async def close(self) -> None:
        """Close the idle connections."""
        if self._closing is not None:
            self._closing.cancel()
        while self._idle:
            await _quit(self._idle.popleft()[0])

    async def _send_in_time(self, message: EmailMessage, address: str) -> None:
        try:
            async with asyncio.timeout(self._seconds), self._connections:
                await self._send(message, address)
        except TimeoutError:
            raise _unavailable("timeout") from None

    async def _send(self, message: EmailMessage, address: str) -> None:
        from aiosmtplib import errors

        try:
            await self._transact(message, address)
        except errors.SMTPRecipientsRefused as refused:
            raise _refusal(refused.recipients[0].code, refused.recipients[0].message) from None
        except (errors.SMTPDataError, errors.SMTPSenderRefused) as refused:
            raise (_unavailable(str(refused.code)) if refused.code < 500 else MailRefused("MESSAGE_REFUSED")) from None
        except errors.SMTPNotSupported:
            raise MailRefused("NOT_SUPPORTED_BY_SERVER") from None
        except (errors.SMTPException, OSError) as error:
            # A transient failure or an error of the configuration (a password, a certificate), so the mail is retried.
            raise _unavailable(type(error).__name__) from None

    async def _transact(self, message: EmailMessage, address: str) -> None:
        client = self._idle.pop()[0] if self._idle else self._client()
        send = partial(client.send_message, message, sender=self._sender.addr_spec, recipients=[address])
        try:
            if not (client.is_connected and await _sent_over_idle(client, send)):
                await client.connect()
                await send()
        except BaseException:
            await _quit(client)
            raise
        self._idle.append((client, asyncio.get_running_loop().time()))
        if self._closing is None or self._closing.done():
            self._closing = asyncio.create_task(self._close_idle())

    async def _close_idle(self) -> None:
        """Close each connection that was idle for too long. Returns when none is left."""
        while self._idle:
            client, since = self._idle[0]
            left = since + self._idle_seconds - asyncio.get_running_loop().time()
            if left > 0:
                await asyncio.sleep(left)
            else:
                self._idle.popleft()
                await _quit(client)

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
            tls_context=self._tls_context,
            timeout=self._seconds,
        )

    @cached_property
    def _tls_context(self) -> ssl.SSLContext:
        """The TLS context of all connections.

        It is created once, because loading the CA certificates takes longer than a handshake.
        """
        import ssl

        return ssl.create_default_context()


async def _sent_over_idle(client: SMTP, send: Callable[[], Awaitable[object]]) -> bool:
    """Send over a connection that was idle. Returns False, and closes it, if the server does not serve it any more."""
    from aiosmtplib.errors import SMTPException, SMTPSenderRefused

    try:
        await client.noop(timeout=REUSE_SECONDS)
    except SMTPException:
        pass
    else:
        with suppress(SMTPSenderRefused):  # for example after too many mails; this one cannot have been sent
            await send()
            return True
    await _quit(client)
    return False


async def _quit(client: SMTP) -> None:
    """Send QUIT, wait up to QUIT_SECONDS for the answer, and close the connection."""
    from aiosmtplib.errors import SMTPException

    try:
        with suppress(SMTPException):
            await client.quit(timeout=QUIT_SECONDS)
    finally:
        client.close()


def _refusal(code: int, text: str) -> Exception:
    """Translate a refusal of the recipient. The server's text may contain the address, so it is dropped."""
    if code < 500:
        return _unavailable(str(code))
    return MailRefused("MESSAGE_REFUSED") if text.startswith(_MESSAGE_FAULTS) else Bounced()


def _unavailable(what: str) -> ServiceError:
    log.warning("smtp_unavailable", extra={"error": what})
    return mail_unavailable()
