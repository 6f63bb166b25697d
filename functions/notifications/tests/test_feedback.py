"""Reports about mail that Amazon SES accepted."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from events.catalog import Money, NotificationBounced, OrderConfirmed
from functions.notifications.domain import NotificationStatus, Preferences
from functions.notifications.tests.shop import ADA, ORDER, Shop
from functions.runtime.errors import Code, ServiceError

SECRET = "opensesame"
CONFIRMED = OrderConfirmed(order_id=ORDER, user_id=ADA, total=Money(100, "EUR"))


@pytest.fixture
async def shop() -> Shop:
    """A shop that has sent Ada a message."""
    made = Shop(mail_events_secret=SECRET)
    await made.receive(CONFIRMED)
    return made


async def report(shop: Shop, kind: str, event_id: str = "1", secret: str = SECRET, **detail: Any) -> None:
    """Report something about Ada's message, as SES does."""
    key = (await shop.message()).id
    tags = {"notification_id": [key], "ses:configuration-set": ["shop"]}
    detail = {"eventType": kind, "mail": {"tags": tags, "destination": ["ada@example.org"]}, **detail}
    payload = msgspec.json.encode({"id": event_id, "detail-type": "Email", "detail": detail})
    await shop.feedback.receive(payload, secret)


HARD: dict[str, Any] = {"bounce": {"bounceType": "Permanent", "bounceSubType": "General"}}


async def test_a_hard_bounce_is_published_once_however_often_it_is_reported(shop: Shop) -> None:
    for event_id in ("1", "1", "2"):
        await report(shop, "Bounce", event_id, **HARD)
    message = await shop.message()
    assert message.status is NotificationStatus.BOUNCED
    assert shop.store.events == [NotificationBounced(notification_id=message.id, user_id=ADA)]


async def test_a_soft_bounce_and_a_delivery_change_nothing(shop: Shop) -> None:
    await report(shop, "Bounce", bounce={"bounceType": "Transient", "bounceSubType": "MailboxFull"})
    await report(shop, "Delivery", "2", delivery={"smtpResponse": "250 ok"})
    assert (await shop.message()).status is NotificationStatus.SENT
    assert shop.store.events == []


async def test_a_bounce_that_is_reported_before_sending_is_recorded_stays(shop: Shop) -> None:
    message = await shop.message()
    message.status = NotificationStatus.PENDING
    await shop.store.update(type(message), message.id, lambda _: (message, ()))
    await report(shop, "Bounce", **HARD)
    assert (await shop.message()).status is NotificationStatus.BOUNCED


async def test_a_complaint_disables_the_users_email(shop: Shop) -> None:
    await report(shop, "Complaint", complaint={"complaintFeedbackType": "abuse"})
    preferences = await shop.store.get(Preferences, ADA)
    assert preferences is not None
    assert not preferences.email_enabled
    await shop.receive(CONFIRMED, event_id="another")
    assert {message.status for message in await shop.messages()} == {
        NotificationStatus.SENT,
        NotificationStatus.SUPPRESSED,
    }


async def test_a_complaint_of_a_deleted_user_stores_nothing(shop: Shop) -> None:
    message = await shop.message()
    await shop.forget(ADA)
    detail = {"eventType": "Complaint", "mail": {"tags": {"notification_id": [message.id]}}}
    await shop.feedback.receive(msgspec.json.encode({"id": "1", "detail": detail}), SECRET)
    assert await shop.store.get(Preferences, ADA) is None


@pytest.mark.parametrize("secret", ["", "opensesam", "opensesame ", "ö"])
async def test_a_caller_without_the_secret_is_refused(shop: Shop, secret: str) -> None:
    with pytest.raises(ServiceError) as raised:
        await report(shop, "Bounce", secret=secret, **HARD)
    assert (raised.value.code, raised.value.reason) == (Code.UNAUTHENTICATED, "SECRET_INVALID")
    assert shop.store.events == []


async def test_without_a_configured_secret_no_report_is_accepted() -> None:
    shop = Shop()
    await shop.receive(CONFIRMED)
    with pytest.raises(ServiceError) as raised:
        await report(shop, "Bounce", secret="", **HARD)
    assert raised.value.reason == "WEBHOOK_NOT_FOUND"


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff", b"[]", b'{"id": 1, "detail": {}}', b'{"id": "1", "detail": {"mail": {"tags": [1]}}}'],
)
async def test_a_malformed_report_is_refused(shop: Shop, payload: bytes) -> None:
    with pytest.raises(ServiceError) as raised:
        await shop.feedback.receive(payload, SECRET)
    assert raised.value.reason == "WEBHOOK_MALFORMED"


@pytest.mark.parametrize("detail", [{}, {"eventType": "Bounce", "mail": {"tags": {"notification_id": ["x"]}}}])
async def test_a_report_about_other_mail_is_ignored(shop: Shop, detail: dict[str, Any]) -> None:
    await shop.feedback.receive(msgspec.json.encode({"id": "1", "detail": detail}), SECRET)
    assert shop.store.events == []
