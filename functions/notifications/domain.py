"""Messages to users, and users' preferences: their state transitions, and the events that the transitions record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from events.catalog import NotificationBounced, Payload
from functions.runtime.errors import aborted

TO_ANOTHER_ADDRESS = frozenset({"email_change", "email_changed"})
"""Templates of messages to an address that is not the account's yet, or no longer is. A bounce of such a message does
not concern the account's own address."""
_RETRY_DELAYS = [timedelta(minutes=minutes) for minutes in (1, 2, 4, 8, 16, 32, 60)]
UNVERIFIED_WINDOW = timedelta(hours=24)
MAX_ATTEMPTS = len(_RETRY_DELAYS) + 4 * 24
"""The number of attempts within four days. So no message is lost if a mail server is down for a weekend (RFC 5321,
section 4.5.4.1)."""


class NotificationStatus(StrEnum):
    """The state of a message. All but PENDING are final."""

    PENDING = "PENDING"
    SENT = "SENT"
    FAILED = "FAILED"
    BOUNCED = "BOUNCED"
    SUPPRESSED = "SUPPRESSED"


def notification_id(source: str, event_id: str, user_id: str) -> str:
    """Return the id of the message about an event to a user. It is derived, so that the message is recorded once."""
    return "ntf_" + hashlib.sha256(f"{source}\n{event_id}\n{user_id}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Message:
    """The content of a message: a template and its parameters, which hold no personal data."""

    template: str
    params: dict[str, str]
    order_id: str = ""


@dataclass
class Notification:
    """A message to one user. Address and name are not stored, but read from the users service for each attempt.

    `params` are the parameters of the template, so that the text can be rendered again with the user's name. While the
    message is pending, `due_at` is the time of the next attempt. Each attempt first moves it ahead, so that no two
    attempts run at once.
    """

    id: str
    user_id: str
    channel: str
    template: str
    params: dict[str, str]
    subject: str
    body: str
    order_id: str
    created_at: datetime
    status: NotificationStatus = NotificationStatus.PENDING
    attempts: int = 0
    due_at: datetime | None = None
    sent_at: datetime | None = None
    reason: str = ""
    version: int = 0

    @property
    def pending(self) -> bool:
        """Whether the message is waiting to be sent or is being sent."""
        return self.status is NotificationStatus.PENDING

    @property
    def exhausted(self) -> bool:
        """Whether no attempt is left."""
        return self.attempts >= MAX_ATTEMPTS

    def begin_attempt(self, now: datetime) -> None:
        """Count an attempt, and move `due_at` ahead by a delay that grows with the number of attempts."""
        self.due_at = now + _RETRY_DELAYS[min(self.attempts, len(_RETRY_DELAYS) - 1)]
        self.attempts += 1

    def mark_sent(self, now: datetime) -> list[Payload]:
        """Record that the channel accepted the message."""
        self.sent_at = now
        return self._end(NotificationStatus.SENT)

    def fail(self, reason: str) -> list[Payload]:
        """Record that the channel refused the message for good, or that no attempt is left."""
        return self._end(NotificationStatus.FAILED, reason)

    def suppress(self, reason: str) -> list[Payload]:
        """Record that the user does not want the message or cannot be reached."""
        return self._end(NotificationStatus.SUPPRESSED, reason)

    def bounce(self) -> list[Payload]:
        """Record that the address does not exist or accepts no mail."""
        self._end(NotificationStatus.BOUNCED, "BOUNCED")
        if self.template in TO_ANOTHER_ADDRESS:
            return []
        return [NotificationBounced(notification_id=self.id, user_id=self.user_id)]

    def _end(self, status: NotificationStatus, reason: str = "") -> list[Payload]:
        self.status, self.reason, self.due_at = status, reason, None
        return []


@dataclass
class Preferences:
    """The notification preferences of a user. The id is the user's id. The version is 0 while the defaults apply."""

    id: str
    email_enabled: bool = True
    muted: list[str] = field(default_factory=list)
    version: int = 0

    def wants(self, template: str) -> bool:
        """Whether to send a message of this template."""
        return self.email_enabled and template not in self.muted

    def change(self, email_enabled: bool | None, muted: Sequence[str] | None, version: int | None) -> None:
        """Replace each value that is not None.

        Raises ABORTED (VERSION_MISMATCH), if `version` is neither None nor the stored version.
        """
        if version is not None and version != self.version:
            raise aborted("VERSION_MISMATCH", "The preferences have changed since they were read.")
        if email_enabled is not None:
            self.email_enabled = email_enabled
        if muted is not None:
            self.muted = sorted(set(muted))


@dataclass
class UnverifiedMail:
    """The mails of the last 24 hours to a user's unverified address. The id is the user's id.

    `sent` has the time of each mail by notification id, so that a repeated attempt counts once.
    """

    id: str
    sent: dict[str, datetime] = field(default_factory=dict)
    version: int = 0

    @property
    def expires_at(self) -> datetime | None:
        """The time at which the last mail no longer counts."""
        return max(self.sent.values()) + UNVERIFIED_WINDOW if self.sent else None

    def allow(self, notification_id: str, limit: int, now: datetime) -> bool:
        """Count a mail and return True. If `limit` others were sent in the window, return False and count nothing."""
        recent = {key: at for key, at in self.sent.items() if at + UNVERIFIED_WINDOW > now}
        if notification_id not in recent and len(recent) >= limit:
            return False
        self.sent = {**recent, notification_id: recent.get(notification_id, now)}
        return True
