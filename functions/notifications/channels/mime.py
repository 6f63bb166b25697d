"""Composition of messages in the Internet Message Format (RFC 5322), for every channel that sends mail."""

from __future__ import annotations

from email.errors import MessageError
from email.headerregistry import Address, HeaderRegistry
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from functools import cache
from typing import Any

from functions.notifications.channels.port import Mail, MailRefused


class _Headers(HeaderRegistry):
    """The library's header factory, which creates a class for each header, with a cache of these classes."""

    @cache  # noqa: B019 - there is one instance
    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name)


_POLICY = SMTP_POLICY.clone(header_factory=_Headers())


def parse_mailbox(text: str) -> Address:
    """Parse a mailbox: `shop@example.com`, or with a display name `The Shop <shop@example.com>`.

    The domain of the result is in ASCII form. Raises ValueError if `text` is not a mailbox.
    """
    header = SMTP_POLICY.header_factory("From", text)
    if header.defects or len(header.addresses) != 1:
        raise ValueError("not one mailbox")
    (mailbox,) = header.addresses
    return Address(mailbox.display_name, addr_spec=ascii_domain(mailbox.addr_spec))


def ascii_domain(address: str) -> str:
    """Return `address` with its domain in ASCII, as mail servers need it: `max@xn--fuball-cta.example` (IDNA 2008).

    Raises ValueError for a domain that has no ASCII form.
    """
    local, at, domain = address.rpartition("@")
    if domain.isascii():
        return address
    import idna  # imported only if an address needs it

    return local + at + idna.encode(domain, uts46=True, std3_rules=True).decode()


def compose(mail: Mail, sender: Address, reply_to: Address | None = None) -> EmailMessage:
    """Return the message with a text part and, if the mail has one, an HTML part.

    Both parts are quoted-printable, so that no line is longer than 76 characters and every server accepts the message.
    The Message-ID is derived from the notification, so that a repetition has the same Message-ID.

    Raises:
        MailRefused: ADDRESS_MALFORMED, if the recipient's address cannot be written in a header.
    """
    message = EmailMessage(_POLICY)
    message["Message-ID"] = f"<{mail.id}@{sender.domain}>"
    message["Date"] = mail.at
    message["From"] = sender
    if reply_to is not None:
        message["Reply-To"] = reply_to
    try:
        message["To"] = Address(" ".join(mail.name.split()), addr_spec=ascii_domain(mail.address))
    except (ValueError, IndexError, MessageError):
        raise MailRefused("ADDRESS_MALFORMED") from None
    message["Subject"] = mail.subject
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.body, cte="quoted-printable")
    if mail.html:
        message.add_alternative(mail.html, subtype="html", cte="quoted-printable")
    return message
