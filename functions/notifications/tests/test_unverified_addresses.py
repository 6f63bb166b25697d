"""Mail to an unverified address: no text that a user wrote, and a limited number."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from events.catalog import OrderCancelled, UserChallenged, UserRegistered
from functions.notifications.domain import UnverifiedMail
from functions.notifications.tests.shop import ADA, Shop
from functions.notifications.tests.test_messages import LOW
from functions.runtime.errors import unavailable
from functions.runtime.ids import new_id

LURE = "WIN 1000 EUR at http://evil.example"


def shop_with_contact(*, verified: bool) -> Shop:
    shop = Shop()
    shop.users.contacts[ADA] = replace(shop.users.contacts[ADA], name=LURE, verified=verified)
    return shop


async def cancel(shop: Shop, times: int) -> None:
    for _ in range(times):
        event = OrderCancelled(order_id=new_id("ord"), user_id=ADA, reason="PAYMENT_DECLINED")
        await shop.receive(event)


async def test_a_name_that_a_stranger_may_have_written_is_in_no_mail() -> None:
    shop = shop_with_contact(verified=False)
    for event in (UserRegistered(user_id=ADA), UserChallenged(user_id=ADA, purpose="PASSWORD_RESET")):
        await shop.receive(event)
    await cancel(shop, 1)
    assert len(shop.smtp.sent) == 3
    for mail in shop.smtp.sent:
        assert "1000" not in mail.subject + mail.body + mail.html + mail.name


async def test_a_user_with_a_verified_address_is_greeted_by_name() -> None:
    shop = shop_with_contact(verified=True)
    await cancel(shop, 1)
    assert f"Hello {LURE}," in shop.smtp.sent[0].body


async def test_a_hundred_orders_send_ten_mails_to_an_unverified_address_and_the_mailbox_has_them_all() -> None:
    shop = shop_with_contact(verified=False)
    await cancel(shop, 99)
    assert len(shop.smtp.sent) == 10
    messages = await shop.messages()
    assert len(messages) == 99
    assert {(message.status.value, message.reason) for message in messages} == {
        ("SENT", ""),
        ("SUPPRESSED", "ADDRESS_UNVERIFIED"),
    }


async def test_a_day_later_and_once_verified_mail_goes_out_again() -> None:
    shop = shop_with_contact(verified=False)
    await cancel(shop, 12)
    shop.clock.advance(timedelta(hours=24))
    await cancel(shop, 12)
    assert len(shop.smtp.sent) == 20
    shop.users.contacts[ADA] = replace(shop.users.contacts[ADA], verified=True)
    await cancel(shop, 12)
    assert len(shop.smtp.sent) == 32


async def test_a_repeated_attempt_counts_once() -> None:
    shop = shop_with_contact(verified=False)
    shop.smtp.faults = [unavailable("MAIL_UNAVAILABLE", "Not now.")] * 3
    await cancel(shop, 1)
    for _ in range(3):
        await shop.sweep()
    counted = await shop.store.get(UnverifiedMail, ADA)
    assert counted is not None
    assert (len(shop.smtp.sent), len(counted.sent)) == (1, 1)


async def test_codes_and_what_administrators_are_told_have_limits_of_their_own() -> None:
    shop = shop_with_contact(verified=False)
    await cancel(shop, 12)
    await shop.receive(UserChallenged(user_id=ADA, purpose="EMAIL_VERIFICATION"))
    await shop.receive(LOW)
    assert [mail.address for mail in shop.smtp.sent[10:]].count("ada@example.org") == 2


async def test_a_deleted_account_leaves_no_count() -> None:
    shop = shop_with_contact(verified=False)
    await cancel(shop, 1)
    await shop.forget(ADA)
    assert await shop.store.get(UnverifiedMail, ADA) is None
