"""Recording and sending of messages, one message for each event and recipient.

A message is committed before it is sent. Its id is derived from the event and the recipient. After this commit the
event counts as handled, and the sweep retries a failed attempt. If the process crashes between sending and the commit
of SENT, the message is sent twice, with the same Message-ID.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from events.catalog import ERASED_USER_ID, Payload
from functions.notifications import rendering, store
from functions.notifications.channels.port import Bounced, Channel, Mail, MailRefused
from functions.notifications.clients import MailedCode, Users
from functions.notifications.domain import (
    TO_ANOTHER_ADDRESS,
    Message,
    Notification,
    Preferences,
    UnverifiedMail,
    notification_id,
)
from functions.runtime.clock import Clock
from functions.runtime.erasure import Erasure
from functions.runtime.errors import ServiceError
from functions.runtime.inbox import InboxRecord
from functions.runtime.paging import all_pages
from functions.runtime.store.port import Changes, Ref, Store
from functions.runtime.sweeps import gather_logged
from observability import tracing
from observability.failpoints import failpoints

log = logging.getLogger("shop.notifications")

Outcome = Callable[[Notification], Sequence[Payload]]
"""The transition of a notification after an attempt to send it."""


class MessageSender:
    """Records messages and sends them. Methods are safe to call concurrently.

    New messages go to `channel`. With `shows_tokens`, which is for development, a message that is only stored in the
    mailbox contains the token that a mail would carry. An unverified address gets at most `unverified_mails_per_day`
    mails in 24 hours, not counting security mails.
    """

    def __init__(
        self,
        store: Store,
        channel: Channel,
        users: Users,
        clock: Clock,
        *,
        shows_tokens: bool = False,
        unverified_mails_per_day: int = 10,
    ) -> None:
        self._store = store
        self._channel = channel
        self._users = users
        self._clock = clock
        self._shows_tokens = shows_tokens
        self._unverified_mails_per_day = unverified_mails_per_day

    async def notify(self, user_id: str, message: Message, inbox: InboxRecord) -> None:
        """Record a message about an event to a user, and try to send it. The sweep retries a failed attempt."""
        if user_id == ERASED_USER_ID:
            return
        key, token = notification_id(inbox.source, inbox.event_id, user_id), ""
        carries_token = message.template in rendering.TOKEN_PURPOSES
        if carries_token and self._shows_tokens and not self._channel.needs_address:
            if await self._store.get(Notification, key):
                return  # a new token would invalidate the one that the mailbox shows
            code = await self._issue_token(user_id, message.template, message.params)
            token = code.token if code else ""
        recorded = await self._record(key, user_id, message, token)
        if recorded is not None and recorded.pending:
            await self._send(recorded)

    async def notify_administrators(self, message: Message, inbox: InboxRecord) -> None:
        """Record and send a message to every administrator. Raises UNAVAILABLE if the users service does not answer."""
        administrators = await self._users.administrators()
        await asyncio.gather(*(self.notify(user_id, message, inbox) for user_id in administrators))

    async def send_due(self) -> None:
        """Send the messages that are due after a crash or a transient failure."""
        async for due in all_pages(partial(store.due, self._store, self._clock.now())):
            await gather_logged([self._retry(waiting.id, waiting.user_id) for waiting in due], log)

    async def _record(self, key: str, user_id: str, message: Message, token: str) -> Notification | None:
        """Commit and return a new message, or return None if it exists or its user was deleted.

        The caller sends the message if it is PENDING.
        """
        now = self._clock.now()
        template, params = message.template, message.params
        subject, body = rendering.subject(template, params), rendering.body(template, params, token=token)
        channel = self._channel

        def change(found: Sequence[Any]) -> Changes[Notification | None]:
            known, preferences, erasure = found
            if known is not None or erasure is not None:
                return Changes(None)
            new = Notification(key, user_id, channel.name, template, params, subject, body, message.order_id, now)
            if not _is_wanted(template, preferences):
                new.suppress("UNWANTED")
            elif channel.needs_address:
                new.begin_attempt(now)
            else:
                new.mark_sent(now)
            return Changes(new, put=[new])

        refs = [Ref(Notification, key), Ref(Preferences, user_id), Ref(Erasure, user_id)]
        with failpoints("notifications.record"):
            return await self._store.transact(refs, change, likely_new=True)

    async def _retry(self, key: str, user_id: str) -> None:
        """Send a message that was listed as due, unless another attempt has begun since then."""
        now = self._clock.now()

        def change(found: Sequence[Any]) -> Changes[Notification | None]:
            known, preferences = found
            if known is None or known.due_at is None or known.due_at > now:
                return Changes(None)
            if not _is_wanted(known.template, preferences):
                known.suppress("UNWANTED")
            elif known.exhausted:
                known.fail("TOO_MANY_ATTEMPTS")
            else:
                known.begin_attempt(now)
            return Changes(known, put=[known])

        with failpoints("notifications.retry"):
            taken = await self._store.transact([Ref(Notification, key), Ref(Preferences, user_id)], change)
        if taken is not None and taken.pending:
            await self._send(taken)

    async def _send(self, notification: Notification) -> None:
        """Make one attempt and commit its outcome. After a ServiceError the message stays pending for the sweep."""
        fields = {"notification_id": notification.id, "template": notification.template}
        try:
            outcome = await self._attempt(notification)
        except ServiceError as error:  # permanent errors too: the event is valid, and the number of attempts is limited
            log.warning("notification_left_pending", extra={**fields, "reason": error.reason})
            return

        def change(found: Sequence[Any]) -> Changes[None]:
            known: Notification | None = found[0]
            if known is None or not known.pending:
                return Changes(None)  # the message was deleted with its user, or settled by another attempt
            return Changes(None, events=outcome(known), put=[known])

        with failpoints("notifications.settle"):
            await self._store.transact([Ref(Notification, notification.id)], change)

    async def _attempt(self, notification: Notification) -> Outcome:
        """Send a message and return the outcome. Raises ServiceError if the attempt may be repeated."""
        contact = await self._users.contact(notification.user_id)
        if contact is None:
            return lambda known: known.suppress("UNKNOWN_PERSON")
        if not contact.deliverable and notification.template not in TO_ANOTHER_ADDRESS:
            return lambda known: known.suppress("UNDELIVERABLE")
        if not contact.verified and not await self._count_unverified(notification):
            return lambda known: known.suppress("ADDRESS_UNVERIFIED")
        token, address = "", contact.email
        if notification.template in rendering.TOKEN_PURPOSES:
            code = await self._issue_token(notification.user_id, notification.template, notification.params)
            if code is None:
                return lambda known: known.suppress("NOTHING_TO_PROVE")
            token, address = code.token, code.email or contact.email
        now = self._clock.now()
        # Do not use the name of an unverified account: a stranger may have put a text for the address's owner into it.
        name = contact.name if contact.verified and address == contact.email else ""
        subject = notification.subject
        text = rendering.body(notification.template, notification.params, name, token)
        return await self._deliver(
            Mail(notification.id, subject, text, now, address, name, rendering.html(subject, text)),
            notification.template,
        )

    async def _deliver(self, mail: Mail, template: str) -> Outcome:
        attributes = {"shop.template": template, "shop.channel": self._channel.name}
        try:
            operation = tracing.SpanTemplate(f"send {template}", "CLIENT", attributes)
            with operation.span(harmless=(Bounced, MailRefused)), failpoints("notifications.send"):
                await self._channel.send(mail)
        except Bounced:
            return lambda known: known.bounce()
        except MailRefused as refused:
            reason = str(refused)
            return lambda known: known.fail(reason)
        return lambda known: known.mark_sent(mail.at)

    async def _issue_token(self, user_id: str, template: str, params: Mapping[str, str]) -> MailedCode | None:
        """Return a token for a mail of this template from the users service, or None if it is no longer needed."""
        purpose = rendering.TOKEN_PURPOSES[template]
        return await self._users.mailed_token(user_id, purpose, params.get("change_id", ""))

    async def _count_unverified(self, notification: Notification) -> bool:
        """Count a mail to an unverified address. Returns whether it may be sent.

        Security mails are not counted, because the users service limits them. Mails to administrators are not counted,
        because a customer cannot cause them.
        """
        if notification.template in rendering.SECURITY_TEMPLATES | rendering.ADMIN_TEMPLATES:
            return True
        user_id, now, limit = notification.user_id, self._clock.now(), self._unverified_mails_per_day

        def change(found: Sequence[Any]) -> Changes[bool]:
            mail, erasure = found
            mail = mail or UnverifiedMail(user_id)
            if erasure is not None or not mail.allow(notification.id, limit, now):
                return Changes(False)
            return Changes(True, put=[mail])

        return await self._store.transact([Ref(UnverifiedMail, user_id), Ref(Erasure, user_id)], change)


def _is_wanted(template: str, preferences: Preferences | None) -> bool:
    """Return whether the user wants a message. Security mails are always sent."""
    return template in rendering.SECURITY_TEMPLATES or preferences is None or preferences.wants(template)
