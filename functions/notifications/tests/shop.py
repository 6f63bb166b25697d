"""A notifications service over a store in memory, with a fake users service and channel that fail on request."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from events.catalog import Payload, SweepDue, UserDeleted
from functions.notifications.channels.feedback import FeedbackService
from functions.notifications.channels.port import Channel, Mail
from functions.notifications.clients import Contact, MailedCode
from functions.notifications.domain import Notification
from functions.notifications.sending import MessageSender
from functions.notifications.service import NotificationsService
from functions.notifications.store import MAPPINGS
from functions.notifications.subscriptions import subscriptions
from functions.runtime.clock import ManualClock
from functions.runtime.errors import ServiceError, unavailable
from functions.runtime.inbox import inbox_record
from functions.runtime.store.memory import MemoryStore

ORDER = "ord_" + "a" * 32
ADA = "usr_" + "1" * 32
BOB = "usr_" + "2" * 32
AWAY = unavailable("PEER_UNAVAILABLE", "Users does not answer.")


class FakeUsers:
    """The users service, with the accounts of Ada and Bob, who are administrators."""

    def __init__(self) -> None:
        self.contacts = {
            ADA: Contact(ADA, "ada@example.org", "Ada"),
            BOB: Contact(BOB, "bob@example.org", "Bob"),
        }
        self.admins = [ADA, BOB]
        self.issued = 0
        self.challenged = True
        self.changes: list[str] = []
        self.other_address = ""
        self.fault: ServiceError | None = None

    async def contact(self, user_id: str) -> Contact | None:
        self._check()
        return self.contacts.get(user_id)

    async def administrators(self) -> list[str]:
        self._check()
        return self.admins

    async def mailed_token(self, user_id: str, purpose: str, change_id: str = "") -> MailedCode | None:
        self._check()
        self.issued += 1
        self.changes.append(change_id)
        code = MailedCode(f"mt_{purpose}_{self.issued}", self.other_address or self.contacts[user_id].email)
        return code if self.challenged else None

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault


class FakeSmtp:
    """A channel that needs addresses. Each call consumes and raises one of `faults`.

    `crash` ends the process after the next mail was sent.
    """

    name = "smtp"
    needs_address = True

    def __init__(self) -> None:
        self.sent: list[Mail] = []
        self.faults: list[Exception] = []
        self.crash = False
        self.down = False

    async def send(self, mail: Mail) -> None:
        await asyncio.sleep(0)
        if self.down:
            raise unavailable("MAIL_UNAVAILABLE", "Mail cannot be sent at present.")
        if self.faults:
            raise self.faults.pop(0)
        self.sent.append(mail)
        if self.crash:
            self.crash = False
            raise KeyboardInterrupt  # the process ends: no handler may catch this


class Shop:
    """A notifications service that receives events, with `smtp` as its channel unless one is given."""

    def __init__(
        self,
        channel: Channel | None = None,
        lost_races: int = 0,
        *,
        shows_tokens: bool = False,
        mail_events_secret: str = "",
    ) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(MAPPINGS, self.clock, lost_races=lost_races)
        self.users = FakeUsers()
        self.smtp = FakeSmtp()
        self.channel = channel or self.smtp
        sender = MessageSender(self.store, self.channel, self.users, self.clock, shows_tokens=shows_tokens)
        self.notifications = NotificationsService(self.store, sender, self.clock)
        self.feedback = FeedbackService(self.store, self.clock, secret=mail_events_secret)
        self._handlers = subscriptions(self.notifications)

    async def receive(self, payload: Payload, event_id: str = "") -> None:
        """Deliver an event. Its id follows from the payload, unless one is given."""
        event_id = event_id or f"{payload.TYPE}/{payload.subject}"
        inbox = inbox_record(payload.SOURCE, event_id, self.clock.now())
        await self._handlers[type(payload)](payload, inbox)

    async def sweep(self, after: timedelta = timedelta(hours=1)) -> None:
        self.clock.advance(after)
        await self.receive(SweepDue())

    async def forget(self, user_id: str) -> None:
        await self.receive(UserDeleted(user_id=user_id))

    async def messages(self, user_id: str = ADA) -> list[Notification]:
        """Return the messages to a user, newest first."""
        page = await self.store.page(Notification, "user", user_id, limit=100, descending=True)
        return page.items

    async def message(self, user_id: str = ADA) -> Notification:
        """Return the only message to a user."""
        (only,) = await self.messages(user_id)
        return only
