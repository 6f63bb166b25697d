"""Use cases of mail feedback: bounces and complaints that Amazon SES reports through Amazon EventBridge.

A report's tags have the notification's id (ses.py), so no address has to be read.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from functions.notifications.channels.port import NOTIFICATION_TAG
from functions.notifications.domain import TO_ANOTHER_ADDRESS, Notification, NotificationStatus, Preferences
from functions.runtime.clock import Clock
from functions.runtime.erasure import Erasure
from functions.runtime.errors import invalid, not_found, unauthenticated
from functions.runtime.inbox import InboxRecord, inbox_record
from functions.runtime.store.port import AlreadyDone, Changes, Ref, Store

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


class FeedbackService:
    """Use cases of mail feedback. Methods are safe to call concurrently.

    `secret` authenticates the reports. If it is empty, no report is accepted.
    """

    def __init__(self, store: Store, clock: Clock, *, secret: str) -> None:
        self._store = store
        self._clock = clock
        self._secret = secret

    async def receive(self, payload: bytes, secret: str) -> None:
        """Handle one report. Reports that are not about our mail are ignored.

        A permanent bounce is recorded as an event, after which the users service marks the address. A complaint
        disables further mail to the user, unless the mail went to another address than the user's.

        Raises:
            NotFound: WEBHOOK_NOT_FOUND if no secret is configured.
            Unauthenticated: SECRET_INVALID.
            InvalidArgument: WEBHOOK_MALFORMED.
        """
        if not self._secret:
            raise not_found("Webhook", "WEBHOOK_NOT_FOUND")
        if not hmac.compare_digest(secret.encode(), self._secret.encode()):
            raise unauthenticated("SECRET_INVALID", "The secret is not valid.")
        try:
            event = msgspec.json.decode(payload, type=_Event)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise invalid("The payload is not an event of Amazon EventBridge.", reason="WEBHOOK_MALFORMED") from None
        detail = event.detail
        key = next(iter(detail.mail.tags.get(NOTIFICATION_TAG, ())), "")
        known = await self._store.get(Notification, key) if key else None
        if known is None:
            return
        log.info("mail_feedback", extra={"notification_id": key, "kind": detail.event_type})
        inbox = inbox_record("/ses", event.id, self._clock.now())
        try:
            if detail.event_type == "Bounce" and detail.bounce.bounce_type == "Permanent":
                await self._bounce(key, inbox)
            elif detail.event_type == "Complaint" and known.template not in TO_ANOTHER_ADDRESS:
                await self._disable_email(known.user_id, inbox)
        except AlreadyDone:
            return

    async def _bounce(self, key: str, inbox: InboxRecord) -> None:
        def change(found: Sequence[Any]) -> Changes[None]:
            known: Notification | None = found[0]
            if known is None or known.status is NotificationStatus.BOUNCED:
                return Changes(None)
            return Changes(None, events=known.bounce(), put=[known])

        await self._store.transact([Ref(Notification, key)], change, idempotency=inbox)

    async def _disable_email(self, user_id: str, inbox: InboxRecord) -> None:
        def change(found: Sequence[Any]) -> Changes[None]:
            preferences, erasure = found
            if erasure is not None:
                return Changes(None)
            preferences = preferences or Preferences(user_id)
            preferences.change(email_enabled=False, muted=None, version=None)
            return Changes(None, put=[preferences])

        refs = [Ref(Preferences, user_id), Ref(Erasure, user_id)]
        await self._store.transact(refs, change, idempotency=inbox)
