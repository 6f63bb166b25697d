"""The port of channels, which deliver messages. Adapters: `mailbox.py`, `smtp.py`, and `ses.py` for Amazon SES."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from functions.runtime.errors import ServiceError, unavailable

NOTIFICATION_TAG = "notification_id"
"""The tag of a mail that holds the notification's id, for later reports about the mail (feedback.py)."""


@dataclass(frozen=True)
class Mail:
    """A message that is ready to be sent; the recipient is never shown.

    `id` is the notification's, `body` the plain text, `html` the same words as HTML.
    """

    id: str
    subject: str
    body: str = field(repr=False)
    at: datetime
    address: str = field(repr=False)
    name: str = field(default="", repr=False)
    html: str = field(default="", repr=False)


class Bounced(Exception):
    """The address does not exist or accepts no mail."""


class MailRefused(Exception):
    """The message is refused for good; the text is a stable reason in UPPER_SNAKE."""


class Channel(Protocol):
    """Sends mail at least once. The message id identifies a repetition."""

    @property
    def name(self) -> str:
        """`mailbox`, `smtp` or `ses`."""

    @property
    def needs_address(self) -> bool:
        """Whether sending needs an address. If not, a message is delivered once it is stored."""

    async def send(self, mail: Mail) -> None:
        """Send a mail. Raises Bounced or MailRefused, which are final, or UNAVAILABLE, which may be retried."""


def mail_unavailable() -> ServiceError:
    """The error that every adapter raises for a transient fault of its own or of the network, and for a timeout."""
    return unavailable("MAIL_UNAVAILABLE", "Mail cannot be sent at present.")
