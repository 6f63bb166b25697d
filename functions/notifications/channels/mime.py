"""Composition of messages in the Internet Message Format (RFC 5322), for every channel that sends mail."""

from __future__ import annotations

from binascii import b2a_qp
from email.errors import MessageError
from email.headerregistry import Address
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from secrets import token_hex

from functions.notifications.channels.port import Mail, MailRefused


def parse_mailbox(text: str) -> Address:
    """Parse a mailbox: `shop@example.com`, or with a display name `The Shop <shop@example.com>`.

    The address of the result is in ASCII. Raises ValueError if `text` is not a mailbox.
    """
    header = SMTP_POLICY.header_factory("From", text)
    if header.defects or len(header.addresses) != 1:
        raise ValueError("not one mailbox")
    (mailbox,) = header.addresses
    return Address(mailbox.display_name, addr_spec=ascii_address(mailbox.addr_spec))


def ascii_address(address: str) -> str:
    """Return `address` with its domain in ASCII, as mail servers need it: `max@xn--fuball-cta.example` (IDNA 2008).

    Raises ValueError for a domain that has no ASCII form, and for a local part that is not ASCII.
    """
    local, at, domain = address.rpartition("@")
    if not domain.isascii():
        import idna  # imported only if an address needs it

        domain = idna.encode(domain, uts46=True, std3_rules=True).decode()
    if not local.isascii():
        raise ValueError("needs SMTPUTF8")
    return local + at + domain


def compose(mail: Mail, sender: Address, reply_to: Address | None = None) -> tuple[str, bytes]:
    """Return the recipient's address, and the message with a text part and, if the mail has one, an HTML part.

    Both parts are quoted-printable, so that no line is longer than 76 characters and every server accepts the message.
    The Message-ID is derived from the notification, so that a repetition has the same Message-ID. The library's
    EmailMessage produces the same message, at six times the CPU.

    Raises:
        MailRefused: ADDRESS_MALFORMED, if the recipient's address cannot be written in a header.
    """
    try:
        recipient = Address(" ".join(mail.name.split()), addr_spec=ascii_address(mail.address))
    except (ValueError, IndexError, MessageError):
        raise MailRefused("ADDRESS_MALFORMED") from None
    head = (
        f"Message-ID: <{mail.id}@{sender.domain}>\r\nDate: {format_datetime(mail.at)}\r\n".encode()
        + _header("From", sender)
        + (_header("Reply-To", reply_to) if reply_to is not None else b"")
        + _header("To", recipient)
        + _header("Subject", mail.subject)
        + b"Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
    )
    body = _part("plain", mail.body)
    if mail.html:
        boundary = token_hex(16).encode()
        parts = b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in (body, _part("html", mail.html)))
        body = b"Content-Type: multipart/alternative; boundary=%b\r\n\r\n%b--%b--\r\n" % (boundary, parts, boundary)
    return recipient.addr_spec, head + body


def _header(name: str, value: str | Address) -> bytes:
    """Return an encoded and folded header. Raises ValueError if `value` has several lines."""
    return SMTP_POLICY.fold_binary(*SMTP_POLICY.header_store_parse(name, value))


def _part(subtype: str, text: str) -> bytes:
    lines = b"".join(line + b"\r\n" for line in text.encode().splitlines())
    head = f'Content-Type: text/{subtype}; charset="utf-8"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n'
    return head.encode() + b2a_qp(lines)
