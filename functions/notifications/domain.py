"""Messages to people and what people want to be told: their states, and the events that tell of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from events.catalog import NotificationBounced, Payload
from functions.runtime.errors import aborted

TO_ANOTHER_ADDRESS = frozenset({"email_change", "email_changed"})
"""Templates of messages to an address that is not, or no longer, the account's: what becomes of them says nothing of
the account's own."""
_WAITS = [timedelta(minutes=minutes) for minutes in (1, 2, 4, 8, 16, 32, 60)]
UNVERIFIED_WINDOW = timedelta(hours=24)
MAX_ATTEMPTS = len(_WAITS) + 4 * 24
"""Then four days are over: a mail server that is down for a weekend costs no message (RFC 5321, 4.5.4.1)."""


class NotificationStatus(StrEnum):
    """Where a message stands; all but PENDING are final."""

    PENDING = "PENDING"
    SENT = "SENT"
    FAILED = "FAILED"
    BOUNCED = "BOUNCED"
    SUPPRESSED = "SUPPRESSED"


def notification_id(source: str, event_id: str, user_id: str) -> str:
    """Derived from the event and the recipient, so that an event is told once to each, however often it
    comes.
    """
    return "ntf_" + hashlib.sha256(f"{source}\n{event_id}\n{user_id}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Message:
    """What is to be said: the template and the texts that it needs; nothing in them names a person."""

    template: str
    params: dict[str, str]
    order_id: str = ""


@dataclass
class Notification:
    """A message to one person. Neither address nor name is kept: they are asked for when it is sent.

    `params` are the template's, so that the text can be written anew with the person's name. Until it is
    final, `due_at` is when it may be tried (again): an attempt sets it ahead first, so that no two try at
    once.
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
        """Waits to be sent, or is being sent."""
        return self.status is NotificationStatus.PENDING

    @property
    def exhausted(self) -> bool:
        """Has been tried as often as it may."""
        return self.attempts >= MAX_ATTEMPTS

    def attempt(self, now: datetime) -> None:
        """Somebody tries to send it now; nobody else does for a while, longer each time."""
        self.due_at = now + _WAITS[min(self.attempts, len(_WAITS) - 1)]
        self.attempts += 1

    def sent(self, now: datetime) -> list[Payload]:
        """The channel took it."""
        self.sent_at = now
        return self._end(NotificationStatus.SENT)

    def fail(self, reason: str) -> list[Payload]:
        """The channel refused it for good, or too often."""
        return self._end(NotificationStatus.FAILED, reason)

    def suppress(self, reason: str) -> list[Payload]:
        """The person does not want it, or cannot be reached."""
        return self._end(NotificationStatus.SUPPRESSED, reason)

    def bounce(self) -> list[Payload]:
        """The address will never take mail."""
        self._end(NotificationStatus.BOUNCED, "BOUNCED")
        if self.template in TO_ANOTHER_ADDRESS:
            return []
        return [NotificationBounced(notification_id=self.id, user_id=self.user_id)]

    def _end(self, status: NotificationStatus, reason: str = "") -> list[Payload]:
        self.status, self.reason, self.due_at = status, reason, None
        return []


@dataclass
class Preferences:
    """What a person (the id) wants to be told; version 0 while the defaults hold."""

    id: str
    email_enabled: bool = True
    muted: list[str] = field(default_factory=list)
    version: int = 0

    def wants(self, template: str) -> bool:
        """Whether to send a message of this template."""
        return self.email_enabled and template not in self.muted

    def change(self, email_enabled: bool | None, muted: Sequence[str] | None, version: int | None) -> None:
        """Replace what is given. Raises ABORTED (VERSION_MISMATCH) unless `version` is None or the stored
        one.
        """
        if version is not None and version != self.version:
            raise aborted("VERSION_MISMATCH", "The preferences have changed since they were read.")
        if email_enabled is not None:
            self.email_enabled = email_enabled
        if muted is not None:
            self.muted = sorted(set(muted))


@dataclass
class UnverifiedMail:
    """Mail of the last 24 hours to an address that nobody has verified, under the account's id.

    `sent` is when, by notification: a repeated attempt counts once.
    """

    id: str
    sent: dict[str, datetime] = field(default_factory=dict)
    version: int = 0

    @property
    def expires_at(self) -> datetime | None:
        """When the last mail stops counting."""
        return max(self.sent.values()) + UNVERIFIED_WINDOW if self.sent else None

    def allow(self, notification_id: str, limit: int, now: datetime) -> bool:
        """Count a mail; return False, and count nothing, when `limit` others went out in the window."""
        recent = {key: at for key, at in self.sent.items() if at + UNVERIFIED_WINDOW > now}
        if notification_id not in recent and len(recent) >= limit:
            return False
        self.sent = {**recent, notification_id: recent.get(notification_id, now)}
        return True


@dataclass
class Erasure:
    """An account that was deleted (its id), kept a while so that late events write to nobody."""

    id: str
    at: datetime
    version: int = 0
