"""People are told what happened, once."""

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
from functions.notifications import service
from functions.notifications.channels import Bounced, Mailbox, Refused
from functions.notifications.clients import Contact
from functions.notifications.domain import Notification
from functions.notifications.tests.office import ADA, AWAY, BOB, ORDER, Office
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
    office = Office(lost_races=1)
    await office.receive(event)
    message = await office.message()
    assert (message.template, message.order_id, message.status) == (template, order_id, "SENT")
    (mail,) = office.post.sent
    assert (mail.address, mail.subject) == ("ada@example.org", message.subject)
    assert mail.body.startswith("Hello Ada,\n")


async def test_the_mailbox_holds_the_message_at_once_and_asks_nobody() -> None:
    office = Office(Mailbox(), lost_races=1)
    office.users.fault = AWAY
    await office.receive(CONFIRMED)
    message = await office.message()
    assert (message.channel, message.status, message.sent_at) == ("mailbox", "SENT", office.clock.now())
    assert "1,234.50 EUR" in message.body
    assert message.version == 1


async def test_neither_address_nor_name_is_kept() -> None:
    office = Office()
    await office.receive(CONFIRMED)
    kept = repr(office.store._entities)
    assert "ada@example.org" not in kept
    assert "Ada" not in kept
    assert "ada@example.org" not in repr(office.post.sent) + repr(office.users.contacts)


async def test_a_repeated_event_says_nothing_again() -> None:
    office = Office()
    for _ in range(3):
        await office.receive(CONFIRMED)
    await office.sweep()
    assert len(await office.messages()) == len(office.post.sent) == 1


async def test_the_same_event_many_times_at_once_is_told_once() -> None:
    office = Office()
    await asyncio.gather(*(office.receive(CONFIRMED) for _ in range(20)))
    assert len(office.post.sent) == 1


async def test_two_events_of_one_kind_are_two_messages() -> None:
    office = Office()
    await office.receive(CONFIRMED, "one")
    await office.receive(CONFIRMED, "two")
    assert len(office.post.sent) == 2


async def test_every_administrator_is_told_of_low_stock_once() -> None:
    office = Office()
    await office.receive(LOW)
    office.users.admins.append("usr_" + "3" * 32)  # an admin who came between two deliveries
    await office.receive(LOW)
    assert sorted(mail.address for mail in office.post.sent) == ["ada@example.org", "bob@example.org"]
    assert (await office.message(BOB)).subject == "Stock is low: MUG-1"


async def test_low_stock_comes_again_while_users_cannot_name_the_administrators() -> None:
    office = Office()
    office.users.fault = AWAY
    with pytest.raises(ServiceError) as raised:
        await office.receive(LOW)
    assert raised.value.code is Code.UNAVAILABLE
    office.users.fault = None
    await office.receive(LOW)
    assert len(office.post.sent) == 2


@pytest.mark.parametrize("fault", ["post", "users"])
async def test_what_cannot_be_sent_now_is_sent_by_the_sweep(fault: str) -> None:
    office = Office()
    office.post.down = fault == "post"
    office.users.fault = AWAY if fault == "users" else None
    await office.receive(CONFIRMED)  # acknowledged: it is recorded
    assert (await office.message()).status == "PENDING"
    office.post.down, office.users.fault = False, None
    await office.sweep()
    assert (await office.message()).status == "SENT"
    assert len(office.post.sent) == 1


async def test_a_users_service_that_refuses_us_makes_no_dead_letter_of_the_event() -> None:
    office = Office()
    office.users.fault = denied()
    await office.receive(CONFIRMED)
    assert (await office.message()).status == "PENDING"


async def test_the_sweep_lets_a_sending_in_progress_be() -> None:
    office = Office()
    office.post.down = True
    await office.receive(CONFIRMED)
    office.post.down = False
    await office.sweep(after=timedelta(seconds=30))
    assert office.post.sent == []


async def test_two_sweeps_at_once_send_one_mail() -> None:
    office = Office(lost_races=1)
    office.post.down = True
    await office.receive(CONFIRMED)
    office.post.down = False
    office.clock.advance(timedelta(hours=1))
    await asyncio.gather(*(office.sweep(after=timedelta()) for _ in range(5)))
    assert len(office.post.sent) == 1


async def test_a_crash_after_sending_repeats_the_same_mail_not_another() -> None:
    office = Office()
    office.post.crash = True
    with pytest.raises(KeyboardInterrupt):
        await _raising(office.receive(CONFIRMED))
    await office.receive(CONFIRMED)  # the broker brings it again
    await office.sweep()
    first, second = office.post.sent
    assert first.id == second.id
    assert (await office.message()).status == "SENT"


async def _raising(call: object) -> None:
    """Drive a coroutine by hand: a KeyboardInterrupt in a task would end the loop."""
    step = getattr(call, "__await__")()  # noqa: B009 - typed as object on purpose
    for _ in step:
        pass


async def test_a_hard_bounce_is_told_to_users() -> None:
    office = Office()
    office.post.faults = [Bounced()]
    await office.receive(CONFIRMED)
    message = await office.message()
    assert message.status == "BOUNCED"
    assert office.store.events == [NotificationBounced(notification_id=message.id, user_id=ADA)]
    await office.sweep()
    assert office.post.sent == []


async def test_a_refused_message_fails_with_its_reason() -> None:
    office = Office()
    office.post.faults = [Refused("MESSAGE_REFUSED")]
    await office.receive(CONFIRMED)
    message = await office.message()
    assert (message.status, message.reason) == ("FAILED", "MESSAGE_REFUSED")
    assert office.store.events == []


@pytest.mark.parametrize(
    ("contact", "reason"),
    [(None, "UNKNOWN_PERSON"), (Contact(ADA, "ada@example.org", "Ada", deliverable=False), "UNDELIVERABLE")],
)
async def test_who_cannot_be_reached_is_not_written_to(contact: Contact | None, reason: str) -> None:
    office = Office()
    office.users.contacts = {ADA: contact} if contact else {}
    await office.receive(CONFIRMED)
    message = await office.message()
    assert (message.status, message.reason) == ("SUPPRESSED", reason)
    assert office.post.sent == []


@pytest.mark.parametrize("channel", [Mailbox(), None])
@pytest.mark.parametrize(("enabled", "muted"), [(False, []), (True, ["order_confirmed"])])
async def test_what_a_person_does_not_want_is_suppressed(
    channel: Mailbox | None, enabled: bool, muted: list[str]
) -> None:
    office = Office(channel)
    caller = Identity(ADA, frozenset({"customer"}))
    await service.update_preferences("", enabled, muted, None, caller, office.desk)
    await office.receive(CONFIRMED)
    assert (await office.message()).status == "SUPPRESSED"
    assert office.post.sent == []


async def test_preferences_changed_while_a_message_waits_are_respected() -> None:
    office = Office()
    office.post.down = True
    await office.receive(CONFIRMED)
    office.post.down = False
    caller = Identity(ADA, frozenset({"customer"}))
    await service.update_preferences("", False, None, None, caller, office.desk)
    await office.sweep()
    assert (await office.message()).status == "SUPPRESSED"


async def test_nobody_is_not_written_to() -> None:
    office = Office(Mailbox())
    await office.receive(OrderShipped(order_id=ORDER, user_id=ERASED_USER_ID))
    assert await office.messages(ERASED_USER_ID) == []


async def test_a_deleted_account_loses_its_messages_and_preferences() -> None:
    office = Office(Mailbox(), lost_races=1)
    for number in range(60):
        await office.receive(CONFIRMED, str(number))
    caller = Identity(ADA, frozenset({"customer"}))
    await service.update_preferences("", False, None, None, caller, office.desk)
    await office.forget(ADA)
    await office.forget(ADA)
    assert await office.messages() == []
    assert (await service.preferences("", caller, office.desk)).version == 0


async def test_a_deleted_account_is_written_to_no_more() -> None:
    office = Office(Mailbox())
    await office.forget(ADA)
    await office.receive(CONFIRMED)
    assert await office.messages() == []
    caller = Identity(ADA, frozenset({"customer"}))
    with pytest.raises(ServiceError) as raised:
        await service.update_preferences("", False, None, None, caller, office.desk)
    assert raised.value.reason == "USER_NOT_FOUND"


async def test_a_message_deleted_while_it_is_sent_stays_deleted() -> None:
    office = Office()
    sending = asyncio.create_task(office.receive(CONFIRMED))
    await asyncio.sleep(0)
    await office.forget(ADA)
    await sending
    assert await office.messages() == []


async def test_what_failed_for_good_is_not_due_any_more() -> None:
    office = Office()
    office.post.faults = [Bounced()]
    await office.receive(CONFIRMED)
    assert (await office.store.page(Notification, "due", "all", limit=10)).items == []
