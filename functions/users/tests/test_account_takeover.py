"""Account takeover: what a stolen access token cannot do, and how a changed e-mail address is undone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from events.catalog import (
    UserChallenged,
    UserEmailChanged,
    UserEmailChangeRequested,
    UserPasswordChanged,
)
from functions.runtime.errors import ServiceError
from functions.runtime.identity import Identity
from functions.users.auth.challenges import Purpose
from functions.users.domain import EmailClaim, User
from functions.users.emails import email_key
from functions.users.service import ExportUser, SetRoles
from functions.users.tests.accounts import PASSWORD, Accounts, identity_of

OLD, NEW, NEWER = "ada@example.com", "countess@example.com", "lovelace@example.com"
OTHER = "another horse, another kingdom"

Use = Callable[[Accounts, User, Identity, str], Awaitable[object]]
USES: dict[str, Use] = {
    "another e-mail": lambda accounts, ada, caller, password: accounts.update(
        ada, by=caller, email=NEW, current_password=password
    ),
    "the end of the account": lambda accounts, ada, caller, password: accounts.delete(
        ada, by=caller, password=password
    ),
    "all one's data": lambda accounts, ada, caller, password: accounts.users.export(
        ExportUser(ada.id, password), caller
    ),
}


async def reason(use: Awaitable[object]) -> str:
    with pytest.raises(ServiceError) as raised:
        await use
    return raised.value.reason


def published(accounts: Accounts) -> list[object]:
    """The recorded events, except registrations."""
    return [event for event in accounts.memory.events if not type(event).__name__.endswith("Registered")]


async def undo_token(accounts: Accounts, user: User) -> str:
    """Issue the token that undoes the latest change of address."""
    change = next(event for event in reversed(accounts.memory.events) if isinstance(event, UserEmailChanged))
    return (await accounts.issue(user, Purpose.EMAIL_UNDO, change.change_id)).token


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_changing_the_email_deleting_or_exporting_an_account_needs_a_recent_login_or_the_password(
    accounts: Accounts, use: Use
) -> None:
    ada = await accounts.register()
    stolen = identity_of(ada, accounts.clock.now())
    accounts.clock.advance(timedelta(minutes=5, seconds=1))
    assert await reason(use(accounts, ada, stolen, "")) == "REAUTHENTICATION_REQUIRED"
    assert await reason(use(accounts, ada, stolen, "a guess")) == "INVALID_CREDENTIALS"
    assert await accounts.stored(ada) == ada
    await use(accounts, ada, stolen, PASSWORD)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_a_recent_login_needs_no_password(accounts: Accounts, use: Use) -> None:
    ada = await accounts.register()
    login = identity_of(ada, accounts.clock.now())
    accounts.clock.advance(timedelta(minutes=5))
    await use(accounts, ada, login, "")


async def test_a_refreshed_token_does_not_count_as_a_recent_login(accounts: Accounts) -> None:
    ada = await accounts.register()
    tokens, verifier = await accounts.login(), accounts.new_verifier()
    accounts.clock.advance(timedelta(minutes=6))
    caller = await verifier.verify((await accounts.refresh(tokens.refresh_token)).access_token)
    assert await reason(accounts.delete(ada, by=caller)) == "REAUTHENTICATION_REQUIRED"
    caller = await verifier.verify((await accounts.login()).access_token)
    await accounts.delete(ada, by=caller)


async def test_a_token_without_the_time_of_the_login_does_not_count_as_a_recent_login(
    accounts: Accounts,
) -> None:
    ada = await accounts.register()
    caller = Identity(ada.id, frozenset({"customer"}))
    assert await reason(accounts.update(ada, by=caller, email=NEW)) == "REAUTHENTICATION_REQUIRED"
    assert (await accounts.update(ada, by=caller, name="Countess")).name == "Countess"


async def test_an_administrator_reauthenticates_with_their_own_password(accounts: Accounts) -> None:
    ada, root = await accounts.register(), await accounts.register_admin()
    old = identity_of(root, accounts.clock.now() - timedelta(hours=1))
    for use in (
        accounts.delete(ada, by=old),
        accounts.users.set_roles(SetRoles(ada.id, ["admin"]), old),
    ):
        assert await reason(use) == "REAUTHENTICATION_REQUIRED"
    await accounts.delete(ada, by=old, password=PASSWORD)


async def test_guessing_the_password_with_a_stolen_token_is_limited(accounts: Accounts) -> None:
    ada = await accounts.register()
    stolen = Identity(ada.id, frozenset({"customer"}))
    for _ in range(5):
        assert await reason(accounts.delete(ada, by=stolen, password="a guess")) == "INVALID_CREDENTIALS"
    assert await reason(accounts.delete(ada, by=stolen, password=PASSWORD)) == "TOO_MANY_ATTEMPTS"


async def test_a_new_address_counts_once_its_code_is_confirmed(accounts: Accounts) -> None:
    ada = await accounts.register()
    pending = await accounts.update(ada, email=NEW.upper())
    assert pending.email == OLD
    assert await accounts.email_changes.pending_email(pending) == NEW
    assert published(accounts) == [UserEmailChangeRequested(user_id=ada.id)]
    code = await accounts.issue(ada, Purpose.EMAIL_CHANGE)
    assert code.email == NEW
    await accounts.email_changes.confirm(code.token)
    moved = await accounts.stored(ada)
    assert (moved.email, moved.email_verified, moved.former_emails[0].email) == (NEW, True, email_key(OLD))
    assert await accounts.email_changes.pending_email(moved) == ""
    assert (await accounts.login(NEW)).user_id == ada.id
    assert await reason(accounts.login(OLD)) == "INVALID_CREDENTIALS"


async def test_an_unconfirmed_address_gives_no_access(accounts: Accounts) -> None:
    ada = await accounts.register()
    await accounts.update(ada, email=NEW)
    assert await reason(accounts.login(NEW)) == "INVALID_CREDENTIALS"
    before = len(accounts.memory.events)
    await accounts.request_reset(NEW)
    assert len(accounts.memory.events) == before, "no code for a new password goes there"
    eve = await accounts.register(NEW, password=OTHER)
    code = await accounts.mailed_token(ada, Purpose.EMAIL_CHANGE)
    assert await reason(accounts.email_changes.confirm(code)) == "EMAIL_TAKEN"
    assert (await accounts.login(NEW, OTHER)).user_id == eve.id


async def test_the_code_of_a_new_address_works_once_for_a_day_and_only_the_latest_address(
    accounts: Accounts,
) -> None:
    ada = await accounts.register()
    await accounts.update(ada, email=NEW)
    first = await accounts.mailed_token(ada, Purpose.EMAIL_CHANGE)
    await accounts.update(ada, email=NEWER)
    assert await reason(accounts.email_changes.confirm(first)) == "MAILED_TOKEN_INVALID"
    second = await accounts.mailed_token(ada, Purpose.EMAIL_CHANGE)
    await accounts.email_changes.confirm(second)
    assert await reason(accounts.email_changes.confirm(second)) == "MAILED_TOKEN_INVALID"
    await accounts.update(ada, email=NEW)
    third = await accounts.mailed_token(ada, Purpose.EMAIL_CHANGE)
    accounts.clock.advance(timedelta(days=1))
    assert await reason(accounts.email_changes.confirm(third)) == "MAILED_TOKEN_INVALID"
    stored = await accounts.stored(ada)
    assert await accounts.email_changes.pending_email(stored) == ""
    await accounts.request_reset(NEWER)
    for wrong in ("", "mt_" + "A" * 64, "a" * 9999, await accounts.mailed_token(ada)):
        assert await reason(accounts.email_changes.confirm(wrong)) == "MAILED_TOKEN_INVALID"
        assert await reason(accounts.email_changes.undo(wrong)) == "MAILED_TOKEN_INVALID"


async def test_the_current_address_cancels_a_change(accounts: Accounts) -> None:
    ada = await accounts.register()
    await accounts.update(ada, email=NEW)
    code = await accounts.mailed_token(ada, Purpose.EMAIL_CHANGE)
    cancelled = await accounts.update(ada, by=Identity(ada.id, frozenset({"customer"})), email=OLD)
    assert cancelled.pending_until is None
    assert await reason(accounts.email_changes.confirm(code)) == "MAILED_TOKEN_INVALID"


async def test_a_new_password_cancels_a_change(accounts: Accounts) -> None:
    ada = await accounts.register()
    await accounts.update(ada, email=NEW)
    code = await accounts.mailed_token(ada, Purpose.EMAIL_CHANGE)
    await accounts.change_password(ada, PASSWORD, OTHER)
    assert await reason(accounts.email_changes.confirm(code)) == "MAILED_TOKEN_INVALID"


async def test_the_former_address_is_notified_and_takes_the_account_back_from_a_thief(
    accounts: Accounts,
) -> None:
    ada = await accounts.register()
    await accounts.change_email(ada, NEW)
    change = published(accounts)[-1]
    assert isinstance(change, UserEmailChanged)
    code = await accounts.issue(ada, Purpose.EMAIL_UNDO, change.change_id)
    assert code.email == OLD
    await accounts.request_reset(NEW)
    reset = await accounts.mailed_token(ada)
    await accounts.reset_password(reset, OTHER)  # the thief's
    await accounts.request_reset(NEW)
    outstanding = await accounts.mailed_token(ada)
    session = await accounts.login(NEW, OTHER)

    await accounts.email_changes.undo(code.token)
    back = await accounts.stored(ada)
    assert (back.email, back.email_verified, back.former_emails) == (OLD, True, [])
    assert await reason(accounts.refresh(session.refresh_token)) == "INVALID_REFRESH_TOKEN"
    for email in (OLD, NEW):
        for password in (PASSWORD, OTHER, ""):
            assert await reason(accounts.login(email, password)) == "INVALID_CREDENTIALS"
    assert await reason(accounts.reset_password(outstanding, PASSWORD)) == "MAILED_TOKEN_INVALID"
    assert await reason(accounts.email_changes.undo(code.token)) == "MAILED_TOKEN_INVALID"
    assert published(accounts)[-1] == UserChallenged(user_id=ada.id, purpose="PASSWORD_RESET")
    mailed = await accounts.issue(ada, Purpose.PASSWORD_RESET)
    assert mailed.email == OLD
    await accounts.reset_password(mailed.token, "a third horse, a third kingdom")
    assert (await accounts.login(OLD, "a third horse, a third kingdom")).user_id == ada.id
    assert (await accounts.register(NEW)).id != ada.id, "the thief's address is free"


async def test_access_tokens_from_before_an_undone_change_are_invalid(accounts: Accounts) -> None:
    ada = await accounts.register()
    await accounts.change_email(ada, NEW)
    thief = (await accounts.login(NEW)).access_token
    accounts.clock.advance(timedelta(seconds=1))
    await accounts.email_changes.undo(await undo_token(accounts, ada))
    assert await reason(accounts.new_verifier().verify(thief)) == "TOKEN_EXPIRED"


async def test_nobody_else_gets_the_former_address_for_seven_days(accounts: Accounts) -> None:
    ada = await accounts.register()
    await accounts.change_email(ada, NEW)
    code = await undo_token(accounts, ada)
    accounts.clock.advance(timedelta(days=7) - timedelta(seconds=1))
    assert await reason(accounts.register(OLD)) == "EMAIL_TAKEN"
    answer = await accounts.register(OLD, private=True)
    assert await accounts.store.get(User, answer.id) is None
    before = len(accounts.memory.events)
    await accounts.request_reset(OLD)
    assert len(accounts.memory.events) == before
    accounts.clock.advance(timedelta(seconds=1))
    assert await reason(accounts.email_changes.undo(code)) == "MAILED_TOKEN_INVALID"
    assert (await accounts.register(OLD)).id != ada.id
    await accounts.delete(ada)
    assert (await accounts.login(OLD)).user_id != ada.id, "what is somebody else's by now stays"


async def test_after_a_second_change_the_first_address_may_still_undo(accounts: Accounts) -> None:
    ada = await accounts.register()
    await accounts.change_email(ada, NEW)
    first = await undo_token(accounts, ada)
    await accounts.change_email(ada, NEWER)
    second = await undo_token(accounts, ada)
    await accounts.email_changes.undo(first)
    assert (await accounts.stored(ada)).email == OLD
    assert await reason(accounts.email_changes.undo(second)) == "MAILED_TOKEN_INVALID"
    for free in (NEW, NEWER):
        assert await accounts.store.get(EmailClaim, email_key(free)) is None


async def test_undoing_the_second_change_keeps_the_first(accounts: Accounts) -> None:
    ada = await accounts.register()
    await accounts.change_email(ada, NEW)
    first = await undo_token(accounts, ada)
    await accounts.change_email(ada, NEWER)
    await accounts.email_changes.undo(await undo_token(accounts, ada))
    assert (await accounts.stored(ada)).email == NEW
    await accounts.email_changes.undo(first)
    assert (await accounts.stored(ada)).email == OLD


async def test_a_change_back_to_a_former_address_leaves_nothing_to_undo(accounts: Accounts) -> None:
    ada = await accounts.register()
    await accounts.change_email(ada, NEW)
    await accounts.change_email(ada, OLD)
    back = await accounts.stored(ada)
    assert (back.email, back.former_emails) == (OLD, [])
    assert await accounts.store.get(EmailClaim, email_key(NEW)) is None
    assert sum(isinstance(event, UserEmailChanged) for event in accounts.memory.events) == 1
    assert (await accounts.login(OLD)).user_id == ada.id


async def test_an_address_changes_at_most_five_times_in_seven_days(accounts: Accounts) -> None:
    ada = await accounts.register()
    for number in range(5):
        await accounts.change_email(ada, f"ada{number}@example.com")
        accounts.clock.advance(timedelta(minutes=15))
    assert await reason(accounts.change_email(ada, NEW)) == "TOO_MANY_EMAIL_CHANGES"
    accounts.clock.advance(timedelta(days=7))
    await accounts.change_email(ada, NEWER)


async def test_an_undeliverable_former_address_is_not_reserved(accounts: Accounts) -> None:
    ada = await accounts.register()

    def bounced(found: User | None) -> tuple[User, list[UserPasswordChanged]]:
        assert found
        found.mark_undeliverable(accounts.clock.now(), accounts.clock.now())
        return found, []

    await accounts.store.update(User, ada.id, bounced)
    await accounts.change_email(ada, NEW)
    moved = await accounts.stored(ada)
    assert (moved.former_emails, moved.email_deliverable) == ([], True)
    assert (await accounts.register(OLD)).id != ada.id


async def test_deleting_an_account_deletes_every_former_address(accounts: Accounts) -> None:
    ada = await accounts.register()
    await accounts.change_email(ada, NEW)
    code = await undo_token(accounts, ada)
    await accounts.change_email(ada, NEWER)
    await accounts.update(ada, email="fourth@example.com")
    await accounts.delete(ada)
    kept = str(accounts.memory.__dict__)
    for email in (OLD, NEW, NEWER, "fourth@example.com"):
        assert email not in kept
        assert email_key(email) not in kept
    assert await reason(accounts.email_changes.undo(code)) == "MAILED_TOKEN_INVALID"


@pytest.mark.parametrize("how", ["changed", "reset"])
async def test_a_new_password_is_announced_to_the_owner(accounts: Accounts, how: str) -> None:
    ada = await accounts.register()
    if how == "changed":
        await accounts.change_password(ada, PASSWORD, OTHER)
    else:
        await accounts.request_reset()
        await accounts.reset_password(await accounts.mailed_token(ada), OTHER)
    assert published(accounts)[-1] == UserPasswordChanged(user_id=ada.id)


async def test_a_code_for_another_account_or_change_is_not_issued(accounts: Accounts) -> None:
    ada, eve = await accounts.register(), await accounts.register("eve@example.com")
    await accounts.change_email(ada, NEW)
    change = published(accounts)[-1]
    assert isinstance(change, UserEmailChanged)
    for user, change_id in ((eve, change.change_id), (ada, ""), (ada, "emc_" + "0" * 32), (ada, "x" * 999)):
        assert await reason(accounts.issue(user, Purpose.EMAIL_UNDO, change_id)) == "CHALLENGE_NOT_FOUND"
