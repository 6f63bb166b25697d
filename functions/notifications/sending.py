"""Use cases: telling people, once per event and recipient.

A message is committed before anything is sent, under an id derived from event and recipient; then the
event is as good as handled, for whatever fails from there on is taken up by the sweep. A crash between
sending and the commit of SENT sends twice, with the same Message-ID.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from events.catalog import ERASED_USER_ID, Payload
from functions.notifications import rendering, store
from functions.notifications.channels import Bounced, Mail, Refused
from functions.notifications.clients import MailedCode
from functions.notifications.desk import Desk
from functions.notifications.domain import (
    TO_ANOTHER_ADDRESS,
    Erasure,
    Message,
    Notification,
    Preferences,
    UnverifiedMail,
    notification_id,
)
from functions.runtime.concurrency import gather_logged
from functions.runtime.errors import ServiceError
from functions.runtime.store.port import Changes, Ref
from observability import tracing
from observability.failpoints import failpoint

log = logging.getLogger("shop.notifications")

SWEEP_SECONDS = 20.0  # within a delivery: after 30 s the broker sends the tick again

Verdict = Callable[[Notification], Sequence[Payload]]


async def tell(user_id: str, message: Message, source: str, event_id: str, desk: Desk) -> None:
    """Tell one person what an event says. Returns once the message is committed, sent or to be sent by
    the sweep.
    """
    if user_id == ERASED_USER_ID:
        return
    key, token = notification_id(source, event_id, user_id), ""
    if message.template in rendering.WITH_TOKEN and desk.shows_tokens and not desk.channel.needs_address:
        if await desk.store.get(Notification, key):
            return  # a token for nobody would void the one that is shown
        code = await _code(user_id, message.template, message.params, desk)
        token = code.token if code else ""
    recorded = await _record(key, user_id, message, token, desk)
    if recorded is not None and recorded.pending:
        await _send(recorded, desk)


async def tell_administrators(message: Message, source: str, event_id: str, desk: Desk) -> None:
    """Tell every administrator. Raises UNAVAILABLE while users cannot say who they are."""
    administrators = await desk.users.administrators()
    await asyncio.gather(*(tell(user_id, message, source, event_id, desk) for user_id in administrators))


async def sweep(desk: Desk) -> None:
    """Send what is due: left by a crash, or refused for the moment."""
    now = desk.clock.now()
    try:
        async with asyncio.timeout(SWEEP_SECONDS):
            cursor, more = None, True
            while more:
                page = await store.due(desk.store, now, cursor)
                await gather_logged(
                    [_try_again(waiting.id, waiting.user_id, desk) for waiting in page.items], log
                )
                cursor, more = page.next_cursor, page.next_cursor is not None
    except TimeoutError:
        log.warning("sweep_unfinished")


async def _record(key: str, user_id: str, message: Message, token: str, desk: Desk) -> Notification | None:
    """Commit the message, unless it is there, or its person is gone: None then. Who calls sends what is
    PENDING.
    """
    now = desk.clock.now()
    template, params = message.template, message.params
    subject, body = rendering.subject(template, params), rendering.body(template, params, token=token)
    channel = desk.channel

    def change(found: Sequence[Any]) -> Changes[Notification | None]:
        known, preferences, request_purge = found
        if known is not None or request_purge is not None:
            return Changes(None)
        new = Notification(key, user_id, channel.name, template, params, subject, body, message.order_id, now)
        if not _wanted(template, preferences):
            new.suppress("UNWANTED")
        elif channel.needs_address:
            new.attempt(now)
        else:
            new.sent(now)
        return Changes(new, put=[new])

    failpoint("notifications.record.before")
    recorded = await desk.store.transact([Ref(Notification, key), *_person(user_id)], change)
    failpoint("notifications.record.after")
    return recorded


async def _try_again(key: str, user_id: str, desk: Desk) -> None:
    """Take up a message that is due, unless somebody else just did."""
    now = desk.clock.now()

    def change(found: Sequence[Any]) -> Changes[Notification | None]:
        known, preferences, _ = found
        if known is None or known.due_at is None or known.due_at > now:
            return Changes(None)
        if not _wanted(known.template, preferences):
            known.suppress("UNWANTED")
        elif known.exhausted:
            known.fail("TOO_MANY_ATTEMPTS")
        else:
            known.attempt(now)
        return Changes(known, put=[known])

    failpoint("notifications.retry.before")
    taken = await desk.store.transact([Ref(Notification, key), *_person(user_id)], change)
    failpoint("notifications.retry.after")
    if taken is not None and taken.pending:
        await _send(taken, desk)


async def _send(notification: Notification, desk: Desk) -> None:
    """One attempt, and its outcome committed; a passing fault leaves the message due for the sweep."""
    about = {"notification_id": notification.id, "template": notification.template}
    try:
        verdict = await _attempt(notification, desk)
    except ServiceError as error:  # even one that lasts: the event is not at fault, and attempts are counted
        log.warning("notification_left_pending", extra={**about, "reason": error.reason})
        return

    def change(found: Sequence[Any]) -> Changes[None]:
        known: Notification | None = found[0]
        if known is None or not known.pending:
            return Changes(None)  # deleted with its person, or settled by somebody else
        return Changes(None, events=verdict(known), put=[known])

    failpoint("notifications.settle.before")
    await desk.store.transact([Ref(Notification, notification.id)], change)
    failpoint("notifications.settle.after")


async def _attempt(notification: Notification, desk: Desk) -> Verdict:
    """Send it; what became of it. Raises ServiceError, transient, when it may be tried again."""
    contact = await desk.users.contact(notification.user_id)
    if contact is None:
        return lambda known: known.suppress("UNKNOWN_PERSON")
    if not contact.deliverable and notification.template not in TO_ANOTHER_ADDRESS:
        return lambda known: known.suppress("UNDELIVERABLE")
    if not contact.verified and not await _within_budget(notification, desk):
        return lambda known: known.suppress("ADDRESS_UNVERIFIED")
    token, address = "", contact.email
    if notification.template in rendering.WITH_TOKEN:
        code = await _code(notification.user_id, notification.template, notification.params, desk)
        if code is None:
            return lambda known: known.suppress("NOTHING_TO_PROVE")
        token, address = code.token, code.email or contact.email
    now = desk.clock.now()
    # Until somebody proved that they read this mail, a name may be a stranger's message to its owner.
    name = contact.name if contact.verified and address == contact.email else ""
    subject = notification.subject
    text = rendering.body(notification.template, notification.params, name, token)
    mail = Mail(notification.id, subject, text, now, address, name, rendering.html(subject, text))
    about = {"shop.template": notification.template, "shop.channel": desk.channel.name}
    try:
        operation = tracing.Operation(f"send {notification.template}", "CLIENT", about)
        with operation.span(harmless=(Bounced, Refused)):
            failpoint("notifications.send.before")
            await desk.channel.send(mail)
            failpoint("notifications.send.after")
    except Bounced:
        return lambda known: known.bounce()
    except Refused as refused:
        reason = str(refused)
        return lambda known: known.fail(reason)
    return lambda known: known.sent(now)


async def _code(user_id: str, template: str, params: Mapping[str, str], desk: Desk) -> MailedCode | None:
    """Ask users for the token that a mail of this template carries; None when there is nothing to prove any more."""
    return await desk.users.mailed_token(user_id, rendering.WITH_TOKEN[template], params.get("change_id", ""))


async def _within_budget(notification: Notification, desk: Desk) -> bool:
    """Count a mail to an unverified address; return whether it may be sent.

    Codes have limits of their own, at users; what administrators are told is not a customer's to trigger.
    """
    if notification.template in rendering.OF_SECURITY | rendering.TO_ADMINISTRATORS:
        return True

    def change(found: Sequence[Any]) -> Changes[bool]:
        mail, request_purge = found
        mail = mail or UnverifiedMail(notification.user_id)
        if request_purge is not None or not mail.allow(
            notification.id, desk.unverified_mails_per_day, desk.clock.now()
        ):
            return Changes(False)
        return Changes(True, put=[mail])

    user_id = notification.user_id
    return await desk.store.transact([Ref(UnverifiedMail, user_id), Ref(Erasure, user_id)], change)


def _wanted(template: str, preferences: Preferences | None) -> bool:
    """Whether to send it; what somebody asked for a moment ago, or must know, is not muted."""
    return template in rendering.OF_SECURITY or preferences is None or preferences.wants(template)


def _person(user_id: str) -> tuple[Ref, Ref]:
    return Ref(Preferences, user_id), Ref(Erasure, user_id)
