"""What becomes of mail after Amazon SES took it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from events.catalog import Money, NotificationBounced, OrderConfirmed
from functions.notifications import feedback
from functions.notifications.domain import NotificationStatus, Preferences
from functions.notifications.tests.office import ADA, ORDER, Office
from functions.runtime.errors import Code, ServiceError

SECRET = "opensesame"
CONFIRMED = OrderConfirmed(order_id=ORDER, user_id=ADA, total=Money(100, "EUR"))


@pytest.fixture
async def office() -> Office:
    """An office that has sent Ada a message."""
    made = Office(mail_events_secret=SECRET)
    await made.receive(CONFIRMED)
    return made


async def report(office: Office, kind: str, event_id: str = "1", secret: str = SECRET, **detail: Any) -> None:
    """SES says something of Ada's message."""
    key = (await office.message()).id
    tags = {"notification_id": [key], "ses:configuration-set": ["shop"]}
    detail = {"eventType": kind, "mail": {"tags": tags, "destination": ["ada@example.org"]}, **detail}
    payload = msgspec.json.encode({"id": event_id, "detail-type": "Email", "detail": detail})
    await feedback.receive(payload, secret, office.desk)


HARD: dict[str, Any] = {"bounce": {"bounceType": "Permanent", "bounceSubType": "General"}}


async def test_a_hard_bounce_is_told_once_however_often_it_is_reported(office: Office) -> None:
    for event_id in ("1", "1", "2"):
        await report(office, "Bounce", event_id, **HARD)
    message = await office.message()
    assert message.status is NotificationStatus.BOUNCED
    assert office.store.events == [NotificationBounced(notification_id=message.id, user_id=ADA)]


async def test_a_soft_bounce_and_a_delivery_change_nothing(office: Office) -> None:
    await report(office, "Bounce", bounce={"bounceType": "Transient", "bounceSubType": "MailboxFull"})
    await report(office, "Delivery", "2", delivery={"smtpResponse": "250 ok"})
    assert (await office.message()).status is NotificationStatus.SENT
    assert office.store.events == []


async def test_a_bounce_that_is_faster_than_our_own_note_stays(office: Office) -> None:
    message = await office.message()
    message.status = NotificationStatus.PENDING
    await office.store.update(type(message), message.id, lambda _: (message, ()))
    await report(office, "Bounce", **HARD)
    assert (await office.message()).status is NotificationStatus.BOUNCED


async def test_who_calls_it_spam_gets_no_more(office: Office) -> None:
    await report(office, "Complaint", complaint={"complaintFeedbackType": "abuse"})
    preferences = await office.store.get(Preferences, ADA)
    assert preferences is not None
    assert not preferences.email_enabled
    await office.receive(CONFIRMED, event_id="another")
    assert {message.status for message in await office.messages()} == {
        NotificationStatus.SENT,
        NotificationStatus.SUPPRESSED,
    }


async def test_nothing_is_kept_of_a_person_who_is_gone(office: Office) -> None:
    message = await office.message()
    await office.forget(ADA)
    detail = {"eventType": "Complaint", "mail": {"tags": {"notification_id": [message.id]}}}
    await feedback.receive(msgspec.json.encode({"id": "1", "detail": detail}), SECRET, office.desk)
    assert await office.store.get(Preferences, ADA) is None


@pytest.mark.parametrize("secret", ["", "opensesam", "opensesame ", "ö"])
async def test_a_caller_without_the_secret_is_refused(office: Office, secret: str) -> None:
    with pytest.raises(ServiceError) as raised:
        await report(office, "Bounce", secret=secret, **HARD)
    assert (raised.value.code, raised.value.reason) == (Code.UNAUTHENTICATED, "SECRET_INVALID")
    assert office.store.events == []


async def test_where_no_secret_is_configured_none_is_right() -> None:
    office = Office()
    await office.receive(CONFIRMED)
    with pytest.raises(ServiceError) as raised:
        await report(office, "Bounce", secret="", **HARD)
    assert raised.value.reason == "WEBHOOK_NOT_FOUND"


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff", b"[]", b'{"id": 1, "detail": {}}', b'{"id": "1", "detail": {"mail": {"tags": [1]}}}'],
)
async def test_what_is_no_event_is_refused(office: Office, payload: bytes) -> None:
    with pytest.raises(ServiceError) as raised:
        await feedback.receive(payload, SECRET, office.desk)
    assert raised.value.reason == "WEBHOOK_MALFORMED"


@pytest.mark.parametrize(
    "detail", [{}, {"eventType": "Bounce", "mail": {"tags": {"notification_id": ["x"]}}}]
)
async def test_mail_that_is_not_ours_is_no_error(office: Office, detail: dict[str, Any]) -> None:
    await feedback.receive(msgspec.json.encode({"id": "1", "detail": detail}), SECRET, office.desk)
    assert office.store.events == []
