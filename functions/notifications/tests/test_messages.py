"""Users are told what happened, once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from events.catalog import (
    ERASED_USER_ID,
    Money,
    NotificationBounced,
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderShipped,
    Payload,
    PaymentRefunded,
    StockLow,
    UserRegistered,
)
from functions.notifications.channels.mailbox import Mailbox
from functions.notifications.channels.port import Bounced, MailRefused
from functions.notifications.clients import Contact
from functions.notifications.domain import Notification
from functions.notifications.service import UpdatePreferences
from functions.notifications.tests.shop import ADA, AWAY, BOB, ORDER, Shop
from functions.runtime.errors import Code, ServiceError, denied
from functions.runtime.identity import Identity

TOTAL = Money(123450, "EUR")
CONFIRMED = OrderConfirmed(order_id=ORDER, user_id=ADA, total=TOTAL)
LOW = StockLow(product_id="prd_" + "c" * 32, sku="MUG-1", available=2, threshold=5)
EVENTS: list[tuple[Payload, str, str]] = [
    (UserRegistered(user_id=ADA), "welcome", ""),
    (CONFIRMED, "order_confirmed", ORDER),
    (OrderCancelled(order_id=ORDER, user_id=ADA, reason="OUT_OF_STOCK"), "order_cancelled", ORDER),
    (OrderShipped(order_id=ORDER, user_id=ADA), "order_shipped", ORDER),
    (OrderDelivered(order_id=ORDER, user_id=ADA), "order_delivered", ORDER),
    (
        PaymentRefunded(
            order_id=ORDER,
            user_id=ADA,
            payment_id="pay_" + "a" * 32,
            refund_id="ref_" + "a" * 32,
            amount=TOTAL,
            refunded=TOTAL,
        ),
        "payment_refunded",
        ORDER,
    ),
]


@pytest.mark.parametrize(("event", "template", "order_id"), EVENTS, ids=lambda value: str(value)[:20])
async def test_every_event_writes_its_message(event: Payload, template: str, order_id: str) -> None:
    shop = Shop(lost_races=1)
    await shop.receive(event)
    message = await shop.message()
    assert (message.template, message.order_id, message.status) == (template, order_id, "SENT")
    (mail,) = shop.smtp.sent
    assert (mail.address, mail.subject) == ("ada@example.org", message.subject)
    assert mail.body.startswith("Hello Ada,\n")


async def test_the_mailbox_holds_the_message_at_once_and_asks_nobody() -> None:
    shop = Shop(Mailbox(), lost_races=1)
    shop.users.fault = AWAY
    await shop.receive(CONFIRMED)
    message = await shop.message()
    assert (message.channel, message.status, message.sent_at) == ("mailbox", "SENT", shop.clock.now())
    assert "1,234.50 EUR" in message.body
    assert message.version == 1


async def test_neither_address_nor_name_is_kept() -> None:
    shop = Shop()
    await shop.receive(CONFIRMED)
    kept = repr(shop.store._entities)
    assert "ada@example.org" not in kept
    assert "Ada" not in kept
    assert "ada@example.org" not in repr(shop.smtp.sent) + repr(shop.users.contacts)


async def test_a_repeated_event_says_nothing_again() -> None:
    shop = Shop()
    for _ in range(3):
        await shop.receive(CONFIRMED)
    await shop.sweep()
    assert len(await shop.messages()) == len(shop.smtp.sent) == 1


async def test_the_same_event_many_times_at_once_is_told_once() -> None:
    shop = Shop()
    await asyncio.gather(*(shop.receive(CONFIRMED) for _ in range(20)))
    assert len(shop.smtp.sent) == 1


async def test_two_events_of_one_kind_are_two_messages() -> None:
    shop = Shop()
    await shop.receive(CONFIRMED, "one")
    await shop.receive(CONFIRMED, "two")
    assert len(shop.smtp.sent) == 2


async def test_every_administrator_is_told_of_low_stock_once() -> None:
    shop = Shop()
    await shop.receive(LOW)
    shop.users.admins.append("usr_" + "3" * 32)  # an admin who came between two deliveries
    await shop.receive(LOW)
    assert sorted(mail.address for mail in shop.smtp.sent) == ["ada@example.org", "bob@example.org"]
    assert (await shop.message(BOB)).subject == "Stock is low: MUG-1"


async def test_low_stock_comes_again_while_users_cannot_name_the_administrators() -> None:
    shop = Shop()
    shop.users.fault = AWAY
    with pytest.raises(ServiceError) as raised:
        await shop.receive(LOW)
    assert raised.value.code is Code.UNAVAILABLE
    shop.users.fault = None
    await shop.receive(LOW)
    assert len(shop.smtp.sent) == 2


@pytest.mark.parametrize("fault", ["post", "users"])
async def test_a_message_that_cannot_be_sent_now_is_sent_by_the_sweep(fault: str) -> None:
    shop = Shop()
    shop.smtp.down = fault == "post"
    shop.users.fault = AWAY if fault == "users" else None
    await shop.receive(CONFIRMED)  # acknowledged: it is recorded
    assert (await shop.message()).status == "PENDING"
    shop.smtp.down, shop.users.fault = False, None
    await shop.sweep()
    assert (await shop.message()).status == "SENT"
    assert len(shop.smtp.sent) == 1


async def test_an_event_is_acknowledged_although_users_refuses_the_call() -> None:
    shop = Shop()
    shop.users.fault = denied()
    await shop.receive(CONFIRMED)
    assert (await shop.message()).status == "PENDING"


async def test_the_sweep_leaves_an_attempt_in_progress_alone() -> None:
    shop = Shop()
    shop.smtp.down = True
    await shop.receive(CONFIRMED)
    shop.smtp.down = False
    await shop.sweep(after=timedelta(seconds=30))
    assert shop.smtp.sent == []


async def test_two_sweeps_at_once_send_one_mail() -> None:
    shop = Shop(lost_races=1)
    shop.smtp.down = True
    await shop.receive(CONFIRMED)
    shop.smtp.down = False
    shop.clock.advance(timedelta(hours=1))
    await asyncio.gather(*(shop.sweep(after=timedelta()) for _ in range(5)))
    assert len(shop.smtp.sent) == 1


async def test_a_crash_after_sending_repeats_the_same_mail_not_another() -> None:
    shop = Shop()
    shop.smtp.crash = True
    with pytest.raises(KeyboardInterrupt):
        await _raising(shop.receive(CONFIRMED))
    await shop.receive(CONFIRMED)  # the broker brings it again
    await shop.sweep()
    first, second = shop.smtp.sent
    assert first.id == second.id
    assert (await shop.message()).status == "SENT"


async def _raising(call: object) -> None:
    """Drive a coroutine by hand: a KeyboardInterrupt in a task would end the loop."""
    step = getattr(call, "__await__")()  # noqa: B009 - typed as object on purpose
    for _ in step:
        pass


async def test_a_hard_bounce_is_published() -> None:
    shop = Shop()
    shop.smtp.faults = [Bounced()]
    await shop.receive(CONFIRMED)
    message = await shop.message()
    assert message.status == "BOUNCED"
    assert shop.store.events == [NotificationBounced(notification_id=message.id, user_id=ADA)]
    await shop.sweep()
    assert shop.smtp.sent == []


async def test_a_refused_message_fails_with_its_reason() -> None:
    shop = Shop()
    shop.smtp.faults = [MailRefused("MESSAGE_REFUSED")]
    await shop.receive(CONFIRMED)
    message = await shop.message()
    assert (message.status, message.reason) == ("FAILED", "MESSAGE_REFUSED")
    assert shop.store.events == []


@pytest.mark.parametrize(
    ("contact", "reason"),
    [(None, "UNKNOWN_PERSON"), (Contact(ADA, "ada@example.org", "Ada", deliverable=False), "UNDELIVERABLE")],
)
async def test_a_message_to_an_unreachable_user_is_suppressed(contact: Contact | None, reason: str) -> None:
    shop = Shop()
    shop.users.contacts = {ADA: contact} if contact else {}
    await shop.receive(CONFIRMED)
    message = await shop.message()
    assert (message.status, message.reason) == ("SUPPRESSED", reason)
    assert shop.smtp.sent == []


@pytest.mark.parametrize("channel", [Mailbox(), None])
@pytest.mark.parametrize(("enabled", "muted"), [(False, []), (True, ["order_confirmed"])])
async def test_an_unwanted_message_is_suppressed(channel: Mailbox | None, enabled: bool, muted: list[str]) -> None:
    shop = Shop(channel)
    caller = Identity(ADA, frozenset({"customer"}))
    await shop.notifications.update_preferences(UpdatePreferences(email_enabled=enabled, muted=muted), caller)
    await shop.receive(CONFIRMED)
    assert (await shop.message()).status == "SUPPRESSED"
    assert shop.smtp.sent == []


async def test_preferences_changed_while_a_message_waits_are_respected() -> None:
    shop = Shop()
    shop.smtp.down = True
    await shop.receive(CONFIRMED)
    shop.smtp.down = False
    caller = Identity(ADA, frozenset({"customer"}))
    await shop.notifications.update_preferences(UpdatePreferences(email_enabled=False), caller)
    await shop.sweep()
    assert (await shop.message()).status == "SUPPRESSED"


async def test_no_message_is_written_to_an_erased_user() -> None:
    shop = Shop(Mailbox())
    await shop.receive(OrderShipped(order_id=ORDER, user_id=ERASED_USER_ID))
    assert await shop.messages(ERASED_USER_ID) == []


async def test_a_deleted_account_loses_its_messages_and_preferences() -> None:
    shop = Shop(Mailbox(), lost_races=1)
    for number in range(60):
        await shop.receive(CONFIRMED, str(number))
    caller = Identity(ADA, frozenset({"customer"}))
    await shop.notifications.update_preferences(UpdatePreferences(email_enabled=False), caller)
    await shop.forget(ADA)
    await shop.forget(ADA)
    assert await shop.messages() == []
    assert (await shop.notifications.get_preferences("", caller)).version == 0


async def test_a_deleted_account_is_written_to_no_more() -> None:
    shop = Shop(Mailbox())
    await shop.forget(ADA)
    await shop.receive(CONFIRMED)
    assert await shop.messages() == []
    caller = Identity(ADA, frozenset({"customer"}))
    with pytest.raises(ServiceError) as raised:
        await shop.notifications.update_preferences(UpdatePreferences(email_enabled=False), caller)
    assert raised.value.reason == "USER_NOT_FOUND"


async def test_a_message_deleted_while_it_is_sent_stays_deleted() -> None:
    shop = Shop()
    sending = asyncio.create_task(shop.receive(CONFIRMED))
    await asyncio.sleep(0)
    await shop.forget(ADA)
    await sending
    assert await shop.messages() == []


async def test_a_message_that_failed_for_good_is_not_due_any_more() -> None:
    shop = Shop()
    shop.smtp.faults = [Bounced()]
    await shop.receive(CONFIRMED)
    assert (await shop.store.page(Notification, "due", "all", limit=10)).items == []
