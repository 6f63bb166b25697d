"""A stolen access token does not take an account over, and what moved an account can be undone."""

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
from functions.users import email_change, service
from functions.users.challenge import Purpose
from functions.users.domain import EmailClaim, User
from functions.users.store import email_key
from functions.users.tests.world import PASSWORD, World, me

OLD, NEW, NEWER = "ada@example.com", "countess@example.com", "lovelace@example.com"
OTHER = "another horse, another kingdom"

Use = Callable[[World, User, Identity, str], Awaitable[object]]
USES: dict[str, Use] = {
    "another e-mail": lambda world, ada, caller, password: world.update(
        ada, by=caller, email=NEW, current_password=password
    ),
    "the end of the account": lambda world, ada, caller, password: world.delete(
        ada, by=caller, password=password
    ),
    "all one's data": lambda world, ada, caller, password: service.export_user(
        ada.id, caller, current_password=password, store=world.store, proof=world.proof
    ),
}


async def reason(use: Awaitable[object]) -> str:
    with pytest.raises(ServiceError) as raised:
        await use
    return raised.value.reason


def told(world: World) -> list[object]:
    """What notifications hears of, but for registrations."""
    return [event for event in world.memory.events if not type(event).__name__.endswith("Registered")]


async def undo_token(world: World, user: User) -> str:
    """The token in the mail to the address that was left last."""
    change = next(event for event in reversed(world.memory.events) if isinstance(event, UserEmailChanged))
    return (await world.issue(user, Purpose.EMAIL_UNDO, change.change_id)).token


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_what_moves_ends_or_shows_a_whole_account_needs_a_recent_login_or_the_password(
    world: World, use: Use
) -> None:
    ada = await world.register()
    stolen = me(ada, world.clock.now())
    world.clock.advance(timedelta(minutes=5, seconds=1))
    assert await reason(use(world, ada, stolen, "")) == "REAUTHENTICATION_REQUIRED"
    assert await reason(use(world, ada, stolen, "a guess")) == "INVALID_CREDENTIALS"
    assert await world.stored(ada) == ada
    await use(world, ada, stolen, PASSWORD)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_after_a_recent_login_no_password_is_asked_for(world: World, use: Use) -> None:
    ada = await world.register()
    login = me(ada, world.clock.now())
    world.clock.advance(timedelta(minutes=5))
    await use(world, ada, login, "")


async def test_a_refreshed_token_is_no_recent_login(world: World) -> None:
    ada = await world.register()
    tokens, verifier = await world.login(), world.new_verifier()
    world.clock.advance(timedelta(minutes=6))
    caller = await verifier.verify((await world.refresh(tokens.refresh_token)).access_token)
    assert await reason(world.delete(ada, by=caller)) == "REAUTHENTICATION_REQUIRED"
    caller = await verifier.verify((await world.login()).access_token)
    await world.delete(ada, by=caller)


async def test_a_token_that_does_not_say_when_its_person_logged_in_is_no_recent_login(world: World) -> None:
    ada = await world.register()
    caller = Identity(ada.id, frozenset({"customer"}))
    assert await reason(world.update(ada, by=caller, email=NEW)) == "REAUTHENTICATION_REQUIRED"
    assert (await world.update(ada, by=caller, name="Countess")).name == "Countess"


async def test_an_administrator_proves_themselves_and_not_the_person(world: World) -> None:
    ada, root = await world.register(), await world.register_admin()
    old = me(root, world.clock.now() - timedelta(hours=1))
    for use in (
        world.delete(ada, by=old),
        service.set_roles(ada.id, ["admin"], old, store=world.store, proof=world.proof, clock=world.clock),
    ):
        assert await reason(use) == "REAUTHENTICATION_REQUIRED"
    await world.delete(ada, by=old, password=PASSWORD)


async def test_guessing_the_password_with_a_stolen_token_is_bounded(world: World) -> None:
    ada = await world.register()
    stolen = Identity(ada.id, frozenset({"customer"}))
    for _ in range(5):
        assert await reason(world.delete(ada, by=stolen, password="a guess")) == "INVALID_CREDENTIALS"
    assert await reason(world.delete(ada, by=stolen, password=PASSWORD)) == "TOO_MANY_ATTEMPTS"


async def test_a_new_address_counts_once_its_code_came_back(world: World) -> None:
    ada = await world.register()
    pending = await world.update(ada, email=NEW.upper())
    assert pending.email == OLD
    assert await email_change.pending_email(pending, store=world.store, clock=world.clock) == NEW
    assert told(world) == [UserEmailChangeRequested(user_id=ada.id)]
    code = await world.issue(ada, Purpose.EMAIL_CHANGE)
    assert code.email == NEW
    await world.confirm_email(code.token)
    moved = await world.stored(ada)
    assert (moved.email, moved.email_verified, moved.former_emails[0].email) == (NEW, True, email_key(OLD))
    assert await email_change.pending_email(moved, store=world.store, clock=world.clock) == ""
    assert (await world.login(NEW)).user_id == ada.id
    assert await reason(world.login(OLD)) == "INVALID_CREDENTIALS"


async def test_an_address_that_did_not_answer_opens_nothing(world: World) -> None:
    ada = await world.register()
    await world.update(ada, email=NEW)
    assert await reason(world.login(NEW)) == "INVALID_CREDENTIALS"
    before = len(world.memory.events)
    await world.forget_password(NEW)
    assert len(world.memory.events) == before, "no code for a new password goes there"
    eve = await world.register(NEW, password=OTHER)
    code = await world.mailed(ada, Purpose.EMAIL_CHANGE)
    assert await reason(world.confirm_email(code)) == "EMAIL_TAKEN"
    assert (await world.login(NEW, OTHER)).user_id == eve.id


async def test_the_code_of_a_new_address_works_once_for_a_day_and_only_the_latest_address(
    world: World,
) -> None:
    ada = await world.register()
    await world.update(ada, email=NEW)
    first = await world.mailed(ada, Purpose.EMAIL_CHANGE)
    await world.update(ada, email=NEWER)
    assert await reason(world.confirm_email(first)) == "MAILED_TOKEN_INVALID"
    second = await world.mailed(ada, Purpose.EMAIL_CHANGE)
    await world.confirm_email(second)
    assert await reason(world.confirm_email(second)) == "MAILED_TOKEN_INVALID"
    await world.update(ada, email=NEW)
    third = await world.mailed(ada, Purpose.EMAIL_CHANGE)
    world.clock.advance(timedelta(days=1))
    assert await reason(world.confirm_email(third)) == "MAILED_TOKEN_INVALID"
    stored = await world.stored(ada)
    assert await email_change.pending_email(stored, store=world.store, clock=world.clock) == ""
    await world.forget_password(NEWER)
    for wrong in ("", "mt_" + "A" * 64, "a" * 9999, await world.mailed(ada)):
        assert await reason(world.confirm_email(wrong)) == "MAILED_TOKEN_INVALID"
        assert await reason(world.undo_email(wrong)) == "MAILED_TOKEN_INVALID"


async def test_the_present_address_cancels_a_change(world: World) -> None:
    ada = await world.register()
    await world.update(ada, email=NEW)
    code = await world.mailed(ada, Purpose.EMAIL_CHANGE)
    cancelled = await world.update(ada, by=Identity(ada.id, frozenset({"customer"})), email=OLD)
    assert cancelled.pending_until is None
    assert await reason(world.confirm_email(code)) == "MAILED_TOKEN_INVALID"


async def test_a_new_password_cancels_a_change(world: World) -> None:
    ada = await world.register()
    await world.update(ada, email=NEW)
    code = await world.mailed(ada, Purpose.EMAIL_CHANGE)
    await world.change_password(ada, PASSWORD, OTHER)
    assert await reason(world.confirm_email(code)) == "MAILED_TOKEN_INVALID"


async def test_the_former_address_is_told_and_takes_the_account_back_from_a_thief(world: World) -> None:
    ada = await world.register()
    await world.move(ada, NEW)
    change = told(world)[-1]
    assert isinstance(change, UserEmailChanged)
    code = await world.issue(ada, Purpose.EMAIL_UNDO, change.change_id)
    assert code.email == OLD
    await world.forget_password(NEW)
    reset = await world.mailed(ada)
    await world.reset_password(reset, OTHER)  # the thief's
    await world.forget_password(NEW)
    outstanding = await world.mailed(ada)
    session = await world.login(NEW, OTHER)

    await world.undo_email(code.token)
    back = await world.stored(ada)
    assert (back.email, back.email_verified, back.former_emails) == (OLD, True, [])
    assert await reason(world.refresh(session.refresh_token)) == "INVALID_REFRESH_TOKEN"
    for email in (OLD, NEW):
        for password in (PASSWORD, OTHER, ""):
            assert await reason(world.login(email, password)) == "INVALID_CREDENTIALS"
    assert await reason(world.reset_password(outstanding, PASSWORD)) == "MAILED_TOKEN_INVALID"
    assert await reason(world.undo_email(code.token)) == "MAILED_TOKEN_INVALID"
    assert told(world)[-1] == UserChallenged(user_id=ada.id, purpose="PASSWORD_RESET")
    mailed = await world.issue(ada, Purpose.PASSWORD_RESET)
    assert mailed.email == OLD
    await world.reset_password(mailed.token, "a third horse, a third kingdom")
    assert (await world.login(OLD, "a third horse, a third kingdom")).user_id == ada.id
    assert (await world.register(NEW)).id != ada.id, "the thief's address is free"


async def test_access_tokens_from_before_an_undone_change_are_void(world: World) -> None:
    ada = await world.register()
    await world.move(ada, NEW)
    thief = (await world.login(NEW)).access_token
    world.clock.advance(timedelta(seconds=1))
    await world.undo_email(await undo_token(world, ada))
    assert await reason(world.new_verifier().verify(thief)) == "TOKEN_EXPIRED"


async def test_for_seven_days_nobody_else_gets_the_former_address(world: World) -> None:
    ada = await world.register()
    await world.move(ada, NEW)
    code = await undo_token(world, ada)
    world.clock.advance(timedelta(days=7) - timedelta(seconds=1))
    assert await reason(world.register(OLD)) == "EMAIL_TAKEN"
    answer = await world.register(OLD, discreet=True)
    assert await world.store.get(User, answer.id) is None
    before = len(world.memory.events)
    await world.forget_password(OLD)
    assert len(world.memory.events) == before
    world.clock.advance(timedelta(seconds=1))
    assert await reason(world.undo_email(code)) == "MAILED_TOKEN_INVALID"
    assert (await world.register(OLD)).id != ada.id
    await world.delete(ada)
    assert (await world.login(OLD)).user_id != ada.id, "what is somebody else's by now stays"


async def test_a_second_change_does_not_take_the_first_addresss_right_to_undo(world: World) -> None:
    ada = await world.register()
    await world.move(ada, NEW)
    first = await undo_token(world, ada)
    await world.move(ada, NEWER)
    second = await undo_token(world, ada)
    await world.undo_email(first)
    assert (await world.stored(ada)).email == OLD
    assert await reason(world.undo_email(second)) == "MAILED_TOKEN_INVALID"
    for free in (NEW, NEWER):
        assert await world.store.get(EmailClaim, email_key(free)) is None


async def test_undoing_the_second_change_leaves_the_first(world: World) -> None:
    ada = await world.register()
    await world.move(ada, NEW)
    first = await undo_token(world, ada)
    await world.move(ada, NEWER)
    await world.undo_email(await undo_token(world, ada))
    assert (await world.stored(ada)).email == NEW
    await world.undo_email(first)
    assert (await world.stored(ada)).email == OLD


async def test_an_owner_who_moves_back_leaves_the_thief_nothing_to_undo(world: World) -> None:
    ada = await world.register()
    await world.move(ada, NEW)
    await world.move(ada, OLD)
    back = await world.stored(ada)
    assert (back.email, back.former_emails) == (OLD, [])
    assert await world.store.get(EmailClaim, email_key(NEW)) is None
    assert sum(isinstance(event, UserEmailChanged) for event in world.memory.events) == 1
    assert (await world.login(OLD)).user_id == ada.id


async def test_an_address_changes_five_times_in_seven_days(world: World) -> None:
    ada = await world.register()
    for number in range(5):
        await world.move(ada, f"ada{number}@example.com")
        world.clock.advance(timedelta(minutes=15))
    assert await reason(world.move(ada, NEW)) == "TOO_MANY_EMAIL_CHANGES"
    world.clock.advance(timedelta(days=7))
    await world.move(ada, NEWER)


async def test_an_address_whose_mail_reaches_nobody_is_not_kept(world: World) -> None:
    ada = await world.register()

    def bounced(found: User | None) -> tuple[User, list[UserPasswordChanged]]:
        assert found
        found.bounced(world.clock.now(), world.clock.now())
        return found, []

    await world.store.update(User, ada.id, bounced)
    await world.move(ada, NEW)
    moved = await world.stored(ada)
    assert (moved.former_emails, moved.email_deliverable) == ([], True)
    assert (await world.register(OLD)).id != ada.id


async def test_who_leaves_takes_every_address_along(world: World) -> None:
    ada = await world.register()
    await world.move(ada, NEW)
    code = await undo_token(world, ada)
    await world.move(ada, NEWER)
    await world.update(ada, email="fourth@example.com")
    await world.delete(ada)
    kept = str(world.memory.__dict__)
    for email in (OLD, NEW, NEWER, "fourth@example.com"):
        assert email not in kept
        assert email_key(email) not in kept
    assert await reason(world.undo_email(code)) == "MAILED_TOKEN_INVALID"


@pytest.mark.parametrize("how", ["changed", "reset"])
async def test_a_new_password_is_told(world: World, how: str) -> None:
    ada = await world.register()
    if how == "changed":
        await world.change_password(ada, PASSWORD, OTHER)
    else:
        await world.forget_password()
        await world.reset_password(await world.mailed(ada), OTHER)
    assert told(world)[-1] == UserPasswordChanged(user_id=ada.id)


async def test_a_code_for_another_account_or_change_is_not_handed_out(world: World) -> None:
    ada, eve = await world.register(), await world.register("eve@example.com")
    await world.move(ada, NEW)
    change = told(world)[-1]
    assert isinstance(change, UserEmailChanged)
    for user, change_id in ((eve, change.change_id), (ada, ""), (ada, "emc_" + "0" * 32), (ada, "x" * 999)):
        assert await reason(world.issue(user, Purpose.EMAIL_UNDO, change_id)) == "CHALLENGE_NOT_FOUND"
