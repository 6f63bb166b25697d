"""Mails that carry a token, which is requested when the mail is sent and stored nowhere."""

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
from functions.notifications.channels.mailbox import Mailbox
from functions.notifications.channels.port import Bounced
from functions.notifications.service import UpdatePreferences
from functions.notifications.tests.shop import ADA, AWAY, Shop
from functions.runtime.errors import unavailable
from functions.runtime.identity import Identity

RESET = UserChallenged(user_id=ADA, purpose="PASSWORD_RESET")
CHANGE = UserEmailChangeRequested(user_id=ADA)
CHANGED = UserEmailChanged(user_id=ADA, change_id="emc_" + "e" * 32)
VERIFY = UserChallenged(user_id=ADA, purpose="EMAIL_VERIFICATION")


@pytest.mark.parametrize("event", [RESET, VERIFY], ids=lambda event: event.purpose)
async def test_the_mail_has_the_token_and_the_store_has_not(event: UserChallenged) -> None:
    shop = Shop()
    await shop.receive(event)
    (mail,) = shop.smtp.sent
    message = await shop.message()
    assert f"mt_{event.purpose}_1" in mail.body
    assert (message.template, message.status) == (event.purpose.lower(), "SENT")
    assert "mt_" not in str(shop.store.__dict__)


async def test_each_attempt_has_a_token_of_its_own() -> None:
    shop = Shop()
    shop.smtp.faults = [unavailable("MAIL_UNAVAILABLE", "Not now.")]
    await shop.receive(RESET)
    await shop.sweep()
    (mail,) = shop.smtp.sent
    assert "mt_PASSWORD_RESET_2" in mail.body


async def test_nothing_is_sent_when_there_is_nothing_to_prove_any_more() -> None:
    shop = Shop()
    shop.users.challenged = False
    await shop.receive(RESET)
    message = await shop.message()
    assert (shop.smtp.sent, message.status, message.reason) == ([], "SUPPRESSED", "NOTHING_TO_PROVE")


async def test_a_user_with_disabled_email_gets_the_requested_token() -> None:
    shop = Shop()
    ada = Identity(ADA, frozenset({"customer"}))
    await shop.notifications.update_preferences(UpdatePreferences(email_enabled=False), ada)
    await shop.receive(RESET)
    assert len(shop.smtp.sent) == 1


async def test_a_mailbox_shows_the_token_in_development_and_a_redelivery_does_not_void_it() -> None:
    shop = Shop(Mailbox(), shows_tokens=True)
    await shop.receive(VERIFY)
    await shop.receive(VERIFY)
    assert "mt_EMAIL_VERIFICATION_1" in (await shop.message()).body
    assert shop.users.issued == 1


async def test_a_mailbox_elsewhere_never_holds_a_token() -> None:
    shop = Shop(Mailbox())
    await shop.receive(RESET)
    assert "in the e-mail itself" in (await shop.message()).body
    assert shop.users.issued == 0


async def test_while_users_are_away_a_mailbox_waits_for_the_next_delivery() -> None:
    shop = Shop(Mailbox(), shows_tokens=True)
    shop.users.fault = AWAY
    with pytest.raises(type(AWAY)):
        await shop.receive(RESET)
    shop.users.fault = None
    await shop.receive(RESET)
    assert "mt_PASSWORD_RESET_1" in (await shop.message()).body


@pytest.mark.parametrize(
    ("event", "template", "change_id"),
    [(CHANGE, "email_change", ""), (CHANGED, "email_changed", CHANGED.change_id)],
    ids=["the new address", "the former address"],
)
async def test_a_mail_to_another_address_goes_there_without_a_name(
    event: UserEmailChangeRequested | UserEmailChanged, template: str, change_id: str
) -> None:
    shop = Shop()
    shop.users.other_address = "other@example.org"
    shop.users.contacts[ADA] = replace(shop.users.contacts[ADA], deliverable=False)
    await shop.receive(event)
    (mail,) = shop.smtp.sent
    assert (mail.address, mail.name) == ("other@example.org", "")
    assert "Hello,\n" in mail.body
    assert "mt_EMAIL_" in mail.body
    assert ((await shop.message()).template, shop.users.changes) == (template, [change_id])


async def test_a_bounce_of_another_address_says_nothing_of_the_accounts_own() -> None:
    shop = Shop()
    shop.smtp.faults = [Bounced(), Bounced()]
    await shop.receive(CHANGE)
    await shop.receive(VERIFY)
    assert [message.status.value for message in await shop.messages()] == ["BOUNCED", "BOUNCED"]
    bounced = [event for event in shop.store.events if isinstance(event, NotificationBounced)]
    assert len(bounced) == 1


async def test_security_mails_about_an_account_cannot_be_muted() -> None:
    shop = Shop()
    shop.users.contacts[ADA] = replace(shop.users.contacts[ADA], verified=False)
    ada = Identity(ADA, frozenset({"customer"}))
    muted = ["email_change", "email_changed", "password_changed"]
    await shop.notifications.update_preferences(UpdatePreferences(email_enabled=False, muted=muted), ada)
    for number in range(12):  # more than an unverified address gets of other mail
        await shop.receive(UserPasswordChanged(user_id=ADA), f"event-{number}")
    await shop.receive(CHANGED)
    assert len(shop.smtp.sent) == 13
