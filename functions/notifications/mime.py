"""A message as the internet takes it (RFC 5322): the same for every channel that sends mail."""

from __future__ import annotations

from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY

from functions.notifications.channels import Mail, Refused


def compose(mail: Mail, sender: str) -> EmailMessage:
    """The message as it goes over the wire. Its Message-ID comes from the notification, so that repetitions show.

    Raises Refused for an address that no header can hold.
    """
    message = EmailMessage(SMTP_POLICY)
    message["Message-ID"] = f"<{mail.id}@{sender.partition('@')[2]}>"
    message["Date"] = mail.at
    message["From"] = sender
    try:
        message["To"] = Address(" ".join(mail.name.split()), addr_spec=mail.address)
    except (ValueError, IndexError, MessageError):
        raise Refused("ADDRESS_MALFORMED") from None
    message["Subject"] = mail.subject
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.body)
    return message
