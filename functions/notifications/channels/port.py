"""The port of channels, which deliver messages. The adapters are `mailbox.py`, `smtp.py` and `ses.py` (Amazon SES)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from functions.runtime.errors import ServiceError, unavailable

NOTIFICATION_TAG = "notification_id"
"""The tag of a mail with the notification's id. A later report about the mail has the same tag (feedback.py)."""


@dataclass(frozen=True)
class Mail:
    """A message that is ready to be sent. The recipient is never shown.

    `id` is the notification's id, `body` the plain text, and `html` the same words as HTML.
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
    """The message is refused for good. The text is a stable reason in UPPER_SNAKE."""


class Channel(Protocol):
    """A channel that sends a mail at least once. A repetition has the same message id."""

    @property
    def name(self) -> str:
        """The channel's name: `mailbox`, `smtp` or `ses`."""

    @property
    def needs_address(self) -> bool:
        """Whether sending needs an address. If not, a message counts as delivered when it is stored."""

    async def send(self, mail: Mail) -> None:
        """Send a mail. Raises Bounced or MailRefused, which are final, or UNAVAILABLE, which the caller may retry."""


def mail_unavailable() -> ServiceError:
    """Make the error that adapters raise for a timeout, or for a transient failure of the mail server or network."""
    return unavailable("MAIL_UNAVAILABLE", "Mail cannot be sent at present.")
