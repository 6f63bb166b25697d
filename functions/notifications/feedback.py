"""Use cases: what Amazon SES says of mail after it took it, as events that Amazon EventBridge posts.

The event's tags hold the notification's id (ses.py), so no address is looked at.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from functions.notifications.channels import NOTIFICATION_TAG
from functions.notifications.desk import Desk
from functions.notifications.domain import (
    TO_ANOTHER_ADDRESS,
    Erasure,
    Notification,
    NotificationStatus,
    Preferences,
)
from functions.runtime.errors import invalid, not_found, unauthenticated
from functions.runtime.inbox import inbox_record
from functions.runtime.store.port import AlreadyDone, Changes, IdempotencyRecord, Ref

log = logging.getLogger("shop.notifications")


class _Bounce(msgspec.Struct, rename="camel"):
    bounce_type: str = ""


class _Mail(msgspec.Struct):
    tags: dict[str, list[str]] = {}


class _Detail(msgspec.Struct, rename="camel"):
    event_type: str = ""
    mail: _Mail = msgspec.field(default_factory=_Mail)
    bounce: _Bounce = msgspec.field(default_factory=_Bounce)


class _Event(msgspec.Struct):
    id: str
    detail: _Detail


async def receive(payload: bytes, secret: str, desk: Desk) -> None:
    """Handle one event; what does not concern us is no error.

    A hard bounce is told to users, who mark the address. A complaint turns the person's mail off: who calls it spam
    does not want it. Raises UNAUTHENTICATED (SECRET_INVALID), INVALID_ARGUMENT (WEBHOOK_MALFORMED), and NOT_FOUND where
    no secret is configured.
    """
    if not desk.mail_events_secret:
        raise not_found("Webhook", "WEBHOOK_NOT_FOUND")
    if not hmac.compare_digest(secret.encode(), desk.mail_events_secret.encode()):
        raise unauthenticated("SECRET_INVALID", "The secret is not valid.")
    try:
        event = msgspec.json.decode(payload, type=_Event)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise invalid("This is no event of Amazon EventBridge.", reason="WEBHOOK_MALFORMED") from None
    detail = event.detail
    key = next(iter(detail.mail.tags.get(NOTIFICATION_TAG, ())), "")
    known = await desk.store.get(Notification, key) if key else None
    if known is None:
        return
    log.info("mail_feedback", extra={"notification_id": key, "kind": detail.event_type})
    idempotency = inbox_record("/ses", event.id, desk.clock.now())
    try:
        if detail.event_type == "Bounce" and detail.bounce.bounce_type == "Permanent":
            await _bounce(key, idempotency, desk)
        elif detail.event_type == "Complaint" and known.template not in TO_ANOTHER_ADDRESS:
            await _complain(known.user_id, idempotency, desk)
    except AlreadyDone:
        return


async def _bounce(key: str, idempotency: IdempotencyRecord, desk: Desk) -> None:
    def change(found: Sequence[Any]) -> Changes[None]:
        known: Notification | None = found[0]
        if known is None or known.status is NotificationStatus.BOUNCED:
            return Changes(None)
        return Changes(None, events=known.bounce(), put=[known])

    await desk.store.transact([Ref(Notification, key)], change, idempotency=idempotency)


async def _complain(user_id: str, idempotency: IdempotencyRecord, desk: Desk) -> None:
    def change(found: Sequence[Any]) -> Changes[None]:
        preferences, request_purge = found
        if request_purge is not None:
            return Changes(None)
        preferences = preferences or Preferences(user_id)
        preferences.change(email_enabled=False, muted=None, version=None)
        return Changes(None, put=[preferences])

    await desk.store.transact(
        [Ref(Preferences, user_id), Ref(Erasure, user_id)], change, idempotency=idempotency
    )
