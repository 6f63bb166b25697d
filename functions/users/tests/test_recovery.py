"""Mailed tokens: reset a forgotten password, verify an address."""

from __future__ import annotations

from datetime import timedelta

import pytest

from events.catalog import UserChallenged
from functions.runtime.errors import Code, ServiceError
from functions.users.auth.challenges import Challenge, Purpose, challenge_id
from functions.users.domain import User
from functions.users.tests.accounts import PASSWORD, Accounts, identity_of, service_named

NEW = "another horse, another kingdom"


async def reason(accounts: Accounts, token: str, new: str = NEW) -> str:
    with pytest.raises(ServiceError) as raised:
        await accounts.reset_password(token, new)
    assert raised.value.code is Code.INVALID_ARGUMENT
    return raised.value.reason


def stored_text(accounts: Accounts) -> str:
    """The text of everything in the store."""
    return str(accounts.memory.__dict__)


def mails(accounts: Accounts) -> list[UserChallenged]:
    return [payload for payload in accounts.memory.events if isinstance(payload, UserChallenged)]


async def test_a_mailed_token_replaces_the_password_and_ends_every_session(accounts: Accounts) -> None:
    user = await accounts.register()
    session = await accounts.login()
    await accounts.request_reset(" ADA@example.com")
    assert [(mail.user_id, mail.purpose) for mail in mails(accounts)] == [(user.id, "PASSWORD_RESET")]
    await accounts.reset_password(await accounts.mailed_token(user), NEW)
    with pytest.raises(ServiceError):
        await accounts.refresh(session.refresh_token)
    with pytest.raises(ServiceError):
        await accounts.login(password=PASSWORD)
    assert (await accounts.login(password=NEW)).user_id == user.id
    stored = await accounts.store.get(User, user.id)
    assert stored is not None
    assert stored.email_verified, "whoever has the token reads the mail"


async def test_a_token_works_once(accounts: Accounts) -> None:
    user = await accounts.register()
    await accounts.request_reset()
    token = await accounts.mailed_token(user)
    await accounts.reset_password(token, NEW)
    assert await reason(accounts, token) == "MAILED_TOKEN_INVALID"


async def test_a_weak_password_leaves_the_token_valid(accounts: Accounts) -> None:
    user = await accounts.register()
    await accounts.request_reset()
    token = await accounts.mailed_token(user)
    assert await reason(accounts, token, "1234567890") == "WEAK_PASSWORD"
    await accounts.reset_password(token, NEW)


async def test_a_second_request_keeps_the_first_mail_valid_and_one_use_invalidates_both(
    accounts: Accounts,
) -> None:
    user = await accounts.register()
    await accounts.request_reset()
    first = await accounts.mailed_token(user)
    await accounts.request_reset()  # perhaps by a stranger
    second, third = await accounts.mailed_token(user), await accounts.mailed_token(user)
    await accounts.reset_password(first, NEW)
    for token in (second, third):
        assert await reason(accounts, token) == "MAILED_TOKEN_INVALID"


async def test_a_later_request_does_not_extend_an_earlier_mail(accounts: Accounts) -> None:
    user = await accounts.register()
    await accounts.request_reset()
    first = await accounts.mailed_token(user)
    accounts.clock.advance(timedelta(minutes=50))
    await accounts.request_reset()
    second = await accounts.mailed_token(user)
    accounts.clock.advance(timedelta(minutes=10))
    assert await reason(accounts, first) == "MAILED_TOKEN_INVALID"
    await accounts.reset_password(second, NEW)


async def test_strangers_who_register_with_an_address_neither_invalidate_its_codes_nor_use_up_its_quota(
    accounts: Accounts,
) -> None:
    user = await accounts.register()
    await accounts.request_reset()
    mailed = await accounts.mailed_token(user)
    for _ in range(10):
        await accounts.register(password=NEW, private=True)
        accounts.clock.advance(timedelta(minutes=2))
    before = len(mails(accounts))
    await accounts.request_reset()
    assert len(mails(accounts)) == before + 1, "the owner's own request is heard"
    await accounts.reset_password(mailed, NEW)
    assert (await accounts.login(password=NEW)).user_id == user.id


async def test_strangers_who_request_resets_do_not_invalidate_a_mailed_code(accounts: Accounts) -> None:
    user = await accounts.register()
    await accounts.request_reset()
    mailed = await accounts.mailed_token(user)
    for _ in range(20):
        await accounts.request_reset(address="192.0.2.66")
        await accounts.mailed_token(user)
        accounts.clock.advance(timedelta(minutes=2))
    await accounts.reset_password(mailed, NEW)


async def test_the_code_of_a_registration_mail_sets_a_new_password_and_invalidates_other_mails(
    accounts: Accounts,
) -> None:
    user = await accounts.register()
    await accounts.request_reset()
    mailed = await accounts.mailed_token(user)
    await accounts.register(password=NEW, private=True)
    await accounts.reset_password(await accounts.mailed_token(user, Purpose.REGISTRATION), NEW)
    assert await reason(accounts, mailed) == "MAILED_TOKEN_INVALID"


@pytest.mark.parametrize(
    "token",
    ["", "mt_", "mt_" + "A" * 64, "rt_" + "A" * 64, "mt_" + "!" * 64, "mt_" + "\u00e9" * 64, "a" * 9999],
)
async def test_a_token_that_was_never_mailed_is_refused(accounts: Accounts, token: str) -> None:
    await accounts.register()
    await accounts.request_reset()
    assert await reason(accounts, token) == "MAILED_TOKEN_INVALID"


async def test_a_reset_token_expires_after_an_hour(accounts: Accounts) -> None:
    user = await accounts.register()
    await accounts.request_reset()
    token = await accounts.mailed_token(user)
    accounts.clock.advance(timedelta(hours=1))
    assert await reason(accounts, token) == "MAILED_TOKEN_INVALID"
    with pytest.raises(ServiceError, match="Challenge"):
        await accounts.mailed_token(user)


async def test_a_token_mailed_to_an_earlier_address_is_invalid(accounts: Accounts) -> None:
    user = await accounts.register()
    await accounts.request_reset()
    token = await accounts.mailed_token(user)
    await accounts.change_email(user, "new@example.com")
    assert await reason(accounts, token) == "MAILED_TOKEN_INVALID"


async def test_a_token_for_one_purpose_proves_nothing_for_another(accounts: Accounts) -> None:
    user = await accounts.register()
    await accounts.request_verification(user)
    await accounts.request_reset()
    await accounts.mailed_token(user)
    assert (
        await reason(accounts, await accounts.mailed_token(user, Purpose.EMAIL_VERIFICATION)) == "MAILED_TOKEN_INVALID"
    )


async def test_an_unknown_address_gets_a_challenge_and_no_mail(accounts: Accounts) -> None:
    for email in ("nobody@example.com", "no address"):
        before = stored_text(accounts).count('"asked"')
        await accounts.request_reset(email)
        assert stored_text(accounts).count('"asked"') == before + 1, "a challenge, as for a known one"
    assert mails(accounts) == []


async def test_at_most_three_mails_go_out_in_15_minutes_and_the_answer_stays_the_same(
    accounts: Accounts,
) -> None:
    await accounts.register()
    for _ in range(5):
        await accounts.request_reset()
    assert len(mails(accounts)) == 3
    accounts.clock.advance(timedelta(minutes=15))
    await accounts.request_reset()
    assert len(mails(accounts)) == 4


async def test_a_strangers_requests_leave_the_owner_a_mail_of_their_own(accounts: Accounts) -> None:
    await accounts.register()
    for stranger in ("192.0.2.66", "2001:db8::66"):
        for _ in range(5):
            await accounts.request_reset(address=stranger)
    assert len(mails(accounts)) == 6
    await accounts.request_reset(address="198.51.100.1")
    assert len(mails(accounts)) == 7


async def test_an_account_gets_at_most_ten_mails_in_15_minutes(accounts: Accounts) -> None:
    await accounts.register()
    for stranger in range(20):
        await accounts.request_reset(address=f"192.0.2.{stranger}")
    assert len(mails(accounts)) == 10


async def test_the_addresses_of_one_network_cause_only_so_many_mails(accounts: Accounts) -> None:
    for number in range(accounts.settings.login_failures_per_address):
        await accounts.request_reset(f"neighbour{number}@example.com", f"2001:db8::{number:x}")
    with pytest.raises(ServiceError) as raised:
        await accounts.request_reset("one@example.com", "2001:db8::ffff")
    assert raised.value.reason == "TOO_MANY_ATTEMPTS"


async def test_a_network_address_causes_only_so_many_mails(accounts: Accounts) -> None:
    for number in range(accounts.settings.login_failures_per_address):
        await accounts.request_reset(f"neighbour{number}@example.com", "192.0.2.7")
    with pytest.raises(ServiceError) as raised:
        await accounts.request_reset("one@example.com", "192.0.2.7")
    assert raised.value.reason == "TOO_MANY_ATTEMPTS"
    await accounts.request_reset("one@example.com", "192.0.2.8")


async def test_a_reset_ends_a_lockout(accounts: Accounts) -> None:
    user = await accounts.register()
    for _ in range(5):
        with pytest.raises(ServiceError):
            await accounts.login(password="wrong password")
    await accounts.request_reset()
    await accounts.reset_password(await accounts.mailed_token(user), NEW)
    assert (await accounts.login(password=NEW)).user_id == user.id


async def test_an_address_is_verified_by_its_token(accounts: Accounts) -> None:
    user = await accounts.register()
    assert not user.email_verified
    await accounts.request_verification(user)
    await accounts.recovery.verify_email(await accounts.mailed_token(user, Purpose.EMAIL_VERIFICATION))
    stored = await accounts.store.get(User, user.id)
    assert stored is not None
    assert stored.email_verified
    await accounts.request_verification(user)
    assert len(mails(accounts)) == 1, "nothing is sent to a verified address"


async def test_a_fourth_request_for_verification_is_refused(accounts: Accounts) -> None:
    user = await accounts.register()
    for _ in range(3):
        await accounts.request_verification(user)
    with pytest.raises(ServiceError) as raised:
        await accounts.request_verification(user)
    assert raised.value.reason == "TOO_MANY_ATTEMPTS"


async def test_only_notifications_may_issue_a_token(accounts: Accounts) -> None:
    user, admin = await accounts.register(), await accounts.register_admin()
    await accounts.request_reset()
    for caller in (service_named("orders"), identity_of(admin), identity_of(user)):
        with pytest.raises(ServiceError) as raised:
            await accounts.issue(user, Purpose.PASSWORD_RESET, caller=caller)
        assert raised.value.code is Code.PERMISSION_DENIED


async def test_no_token_is_stored(accounts: Accounts) -> None:
    user = await accounts.register()
    await accounts.request_reset()
    token = await accounts.mailed_token(user)
    challenge = await accounts.store.get(Challenge, challenge_id(Purpose.PASSWORD_RESET, user.id))
    assert challenge is not None
    assert challenge.issued[0].digest not in repr(challenge)
    assert token not in stored_text(accounts)
