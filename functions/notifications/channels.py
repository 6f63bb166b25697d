"""The channel port: how a message reaches a person. Adapters: the mailbox here, smtp.py, and ses.py for Amazon SES."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from functions.runtime.errors import ServiceError, unavailable

NOTIFICATION_TAG = "notification_id"
"""The tag with the notification's id, on mail whose fate is reported later (feedback.py)."""


@dataclass(frozen=True)
class Mail:
    """One message, ready to be sent; whom it goes to is never shown.

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
    """The address will never take mail."""


class Refused(Exception):
    """This message will not be taken, now or later; the text is a stable reason in UPPER_SNAKE."""


class Channel(Protocol):
    """Sends mail, at least once: a receiver tells repetitions by the message id."""

    @property
    def name(self) -> str:
        """`mailbox`, `smtp`, `ses`."""

    @property
    def needs_address(self) -> bool:
        """False: to be recorded is to be delivered."""

    async def send(self, mail: Mail) -> None:
        """Raises Bounced or Refused when it is no use to repeat, UNAVAILABLE when it is."""


def mail_unavailable() -> ServiceError:
    """What every adapter raises for a passing fault: of its own, of the network, or of time."""
    return unavailable("MAIL_UNAVAILABLE", "Mail cannot be sent at present.")


class Mailbox:
    """The store itself: a recorded message is one that the person finds in the API."""

    name = "mailbox"
    needs_address = False

    async def send(self, mail: Mail) -> None:
        """Nothing is left to do."""
