"""Mails that carry a token: it is asked for when the mail goes out, and kept nowhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from events.catalog import (
    NotificationBounced,
    UserChallenged,
    UserEmailChanged,
    UserEmailChangeRequested,
    UserPasswordChanged,
)
from functions.notifications import service
from functions.notifications.channels import Bounced, Mailbox
from functions.notifications.tests.office import ADA, AWAY, Office
from functions.runtime.errors import unavailable
from functions.runtime.identity import Identity

RESET = UserChallenged(user_id=ADA, purpose="PASSWORD_RESET")
CHANGE = UserEmailChangeRequested(user_id=ADA)
CHANGED = UserEmailChanged(user_id=ADA, change_id="emc_" + "e" * 32)
VERIFY = UserChallenged(user_id=ADA, purpose="EMAIL_VERIFICATION")


@pytest.mark.parametrize("event", [RESET, VERIFY], ids=lambda event: event.purpose)
async def test_the_mail_has_the_token_and_the_store_has_not(event: UserChallenged) -> None:
    office = Office()
    await office.receive(event)
    (mail,) = office.post.sent
    message = await office.message()
    assert f"mt_{event.purpose}_1" in mail.body
    assert (message.template, message.status) == (event.purpose.lower(), "SENT")
    assert "mt_" not in str(office.store.__dict__)


async def test_each_attempt_has_a_token_of_its_own() -> None:
    office = Office()
    office.post.faults = [unavailable("MAIL_UNAVAILABLE", "Not now.")]
    await office.receive(RESET)
    await office.sweep()
    (mail,) = office.post.sent
    assert "mt_PASSWORD_RESET_2" in mail.body


async def test_nothing_is_sent_when_there_is_nothing_to_prove_any_more() -> None:
    office = Office()
    office.users.challenged = False
    await office.receive(RESET)
    message = await office.message()
    assert (office.post.sent, message.status, message.reason) == ([], "SUPPRESSED", "NOTHING_TO_PROVE")


async def test_who_wants_no_mail_gets_the_one_that_was_asked_for() -> None:
    office = Office()
    ada = Identity(ADA, frozenset({"customer"}))
    await service.update_preferences("", False, None, None, ada, office.desk)
    await office.receive(RESET)
    assert len(office.post.sent) == 1


async def test_a_mailbox_shows_the_token_in_development_and_a_redelivery_does_not_void_it() -> None:
    office = Office(Mailbox(), shows_tokens=True)
    await office.receive(VERIFY)
    await office.receive(VERIFY)
    assert "mt_EMAIL_VERIFICATION_1" in (await office.message()).body
    assert office.users.issued == 1


async def test_a_mailbox_elsewhere_never_holds_a_token() -> None:
    office = Office(Mailbox())
    await office.receive(RESET)
    assert "in the e-mail itself" in (await office.message()).body
    assert office.users.issued == 0


async def test_while_users_are_away_a_mailbox_waits_for_the_next_delivery() -> None:
    office = Office(Mailbox(), shows_tokens=True)
    office.users.fault = AWAY
    with pytest.raises(type(AWAY)):
        await office.receive(RESET)
    office.users.fault = None
    await office.receive(RESET)
    assert "mt_PASSWORD_RESET_1" in (await office.message()).body


@pytest.mark.parametrize(
    ("event", "template", "change_id"),
    [(CHANGE, "email_change", ""), (CHANGED, "email_changed", CHANGED.change_id)],
    ids=["the new address", "the former address"],
)
async def test_a_mail_to_another_address_goes_there_without_a_name(
    event: UserEmailChangeRequested | UserEmailChanged, template: str, change_id: str
) -> None:
    office = Office()
    office.users.other_address = "other@example.org"
    office.users.contacts[ADA] = replace(office.users.contacts[ADA], deliverable=False)
    await office.receive(event)
    (mail,) = office.post.sent
    assert (mail.address, mail.name) == ("other@example.org", "")
    assert "Hello,\n" in mail.body
    assert "mt_EMAIL_" in mail.body
    assert ((await office.message()).template, office.users.changes) == (template, [change_id])


async def test_a_bounce_of_another_address_says_nothing_of_the_accounts_own() -> None:
    office = Office()
    office.post.faults = [Bounced(), Bounced()]
    await office.receive(CHANGE)
    await office.receive(VERIFY)
    assert [message.status.value for message in await office.messages()] == ["BOUNCED", "BOUNCED"]
    bounced = [event for event in office.store.events if isinstance(event, NotificationBounced)]
    assert len(bounced) == 1


async def test_nobody_mutes_what_says_that_an_account_changed_hands() -> None:
    office = Office()
    office.users.contacts[ADA] = replace(office.users.contacts[ADA], verified=False)
    ada = Identity(ADA, frozenset({"customer"}))
    muted = ["email_change", "email_changed", "password_changed"]
    await service.update_preferences("", False, muted, None, ada, office.desk)
    for number in range(12):  # more than an unverified address gets of other mail
        await office.receive(UserPasswordChanged(user_id=ADA), f"event-{number}")
    await office.receive(CHANGED)
    assert len(office.post.sent) == 13
