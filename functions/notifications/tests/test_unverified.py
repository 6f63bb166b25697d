"""Mail to an address that nobody has verified: nothing that a person wrote, and not much of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from events.catalog import OrderCancelled, UserChallenged, UserRegistered
from functions.notifications.domain import UnverifiedMail
from functions.notifications.tests.office import ADA, Office
from functions.notifications.tests.test_telling import LOW
from functions.runtime.errors import unavailable
from functions.runtime.ids import new_id

LURE = "WIN 1000 EUR at http://evil.example"


def office_of(*, verified: bool) -> Office:
    office = Office()
    office.users.contacts[ADA] = replace(office.users.contacts[ADA], name=LURE, verified=verified)
    return office


async def cancel(office: Office, times: int) -> None:
    for _ in range(times):
        event = OrderCancelled(order_id=new_id("ord"), user_id=ADA, reason="PAYMENT_DECLINED")
        await office.receive(event)


async def test_a_name_that_a_stranger_may_have_written_is_in_no_mail() -> None:
    office = office_of(verified=False)
    for event in (UserRegistered(user_id=ADA), UserChallenged(user_id=ADA, purpose="PASSWORD_RESET")):
        await office.receive(event)
    await cancel(office, 1)
    assert len(office.post.sent) == 3
    for mail in office.post.sent:
        assert "1000" not in mail.subject + mail.body + mail.html + mail.name


async def test_a_person_who_reads_the_mail_is_greeted_by_name() -> None:
    office = office_of(verified=True)
    await cancel(office, 1)
    assert f"Hello {LURE}," in office.post.sent[0].body


async def test_a_hundred_orders_send_ten_mails_to_an_unverified_address_and_the_mailbox_has_them_all() -> (
    None
):
    office = office_of(verified=False)
    await cancel(office, 99)
    assert len(office.post.sent) == 10
    messages = await office.messages()
    assert len(messages) == 99
    assert {(message.status.value, message.reason) for message in messages} == {
        ("SENT", ""),
        ("SUPPRESSED", "ADDRESS_UNVERIFIED"),
    }


async def test_a_day_later_and_once_verified_mail_goes_out_again() -> None:
    office = office_of(verified=False)
    await cancel(office, 12)
    office.clock.advance(timedelta(hours=24))
    await cancel(office, 12)
    assert len(office.post.sent) == 20
    office.users.contacts[ADA] = replace(office.users.contacts[ADA], verified=True)
    await cancel(office, 12)
    assert len(office.post.sent) == 32


async def test_a_repeated_attempt_counts_once() -> None:
    office = office_of(verified=False)
    office.post.faults = [unavailable("MAIL_UNAVAILABLE", "Not now.")] * 3
    await cancel(office, 1)
    for _ in range(3):
        await office.sweep()
    counted = await office.store.get(UnverifiedMail, ADA)
    assert counted is not None
    assert (len(office.post.sent), len(counted.sent)) == (1, 1)


async def test_codes_and_what_administrators_are_told_have_limits_of_their_own() -> None:
    office = office_of(verified=False)
    await cancel(office, 12)
    await office.receive(UserChallenged(user_id=ADA, purpose="EMAIL_VERIFICATION"))
    await office.receive(LOW)
    assert [mail.address for mail in office.post.sent[10:]].count("ada@example.org") == 2


async def test_a_deleted_account_leaves_no_count() -> None:
    office = office_of(verified=False)
    await cancel(office, 1)
    await office.forget(ADA)
    assert await office.store.get(UnverifiedMail, ADA) is None
