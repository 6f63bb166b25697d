"""Forgotten passwords and unverified addresses: what a mailed token proves, once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from events.catalog import UserChallenged
from functions.runtime.errors import Code, ServiceError
from functions.users import recovery
from functions.users.challenge import Challenge, Purpose, challenge_id
from functions.users.domain import User
from functions.users.tests.world import PASSWORD, World, me, service_named

NEW = "another horse, another kingdom"


async def reason(world: World, token: str, new: str = NEW) -> str:
    with pytest.raises(ServiceError) as raised:
        await world.reset_password(token, new)
    assert raised.value.code is Code.INVALID_ARGUMENT
    return raised.value.reason


async def verify(world: World, token: str) -> None:
    await recovery.verify_email(token, store=world.store, clock=world.clock)


async def ask_to_verify(world: World, user: User) -> None:
    await recovery.request_verification(user.id, me(user), store=world.store, clock=world.clock)


def kept(world: World) -> str:
    """All that the store holds."""
    return str(world.memory.__dict__)


def mails(world: World) -> list[UserChallenged]:
    return [payload for payload in world.memory.events if isinstance(payload, UserChallenged)]


async def test_a_mailed_token_replaces_the_password_and_ends_every_session(world: World) -> None:
    user = await world.register()
    session = await world.login()
    await world.forget_password(" ADA@example.com")
    assert [(mail.user_id, mail.purpose) for mail in mails(world)] == [(user.id, "PASSWORD_RESET")]
    await world.reset_password(await world.mailed(user), NEW)
    with pytest.raises(ServiceError):
        await world.refresh(session.refresh_token)
    with pytest.raises(ServiceError):
        await world.login(password=PASSWORD)
    assert (await world.login(password=NEW)).user_id == user.id
    stored = await world.store.get(User, user.id)
    assert stored is not None
    assert stored.email_verified, "whoever has the token reads the mail"


async def test_a_token_works_once(world: World) -> None:
    user = await world.register()
    await world.forget_password()
    token = await world.mailed(user)
    await world.reset_password(token, NEW)
    assert await reason(world, token) == "MAILED_TOKEN_INVALID"


async def test_a_weak_password_leaves_the_token_as_it_was(world: World) -> None:
    user = await world.register()
    await world.forget_password()
    token = await world.mailed(user)
    assert await reason(world, token, "1234567890") == "WEAK_PASSWORD"
    await world.reset_password(token, NEW)


async def test_a_second_request_leaves_the_first_mail_good_and_one_use_voids_both(world: World) -> None:
    user = await world.register()
    await world.forget_password()
    first = await world.mailed(user)
    await world.forget_password()  # perhaps by a stranger
    second, third = await world.mailed(user), await world.mailed(user)
    await world.reset_password(first, NEW)
    for token in (second, third):
        assert await reason(world, token) == "MAILED_TOKEN_INVALID"


async def test_a_later_request_does_not_lengthen_the_life_of_an_earlier_mail(world: World) -> None:
    user = await world.register()
    await world.forget_password()
    first = await world.mailed(user)
    world.clock.advance(timedelta(minutes=50))
    await world.forget_password()
    second = await world.mailed(user)
    world.clock.advance(timedelta(minutes=10))
    assert await reason(world, first) == "MAILED_TOKEN_INVALID"
    await world.reset_password(second, NEW)


async def test_strangers_who_register_with_an_address_neither_void_its_codes_nor_use_up_its_quota(
    world: World,
) -> None:
    user = await world.register()
    await world.forget_password()
    mailed = await world.mailed(user)
    for _ in range(10):
        await world.register(password=NEW, discreet=True)
        world.clock.advance(timedelta(minutes=2))
    before = len(mails(world))
    await world.forget_password()
    assert len(mails(world)) == before + 1, "the owner's own request is heard"
    await world.reset_password(mailed, NEW)
    assert (await world.login(password=NEW)).user_id == user.id


async def test_strangers_who_ask_for_resets_do_not_void_the_code_in_the_mail(world: World) -> None:
    user = await world.register()
    await world.forget_password()
    mailed = await world.mailed(user)
    for _ in range(20):
        await world.forget_password(address="192.0.2.66")
        await world.mailed(user)
        world.clock.advance(timedelta(minutes=2))
    await world.reset_password(mailed, NEW)


async def test_who_was_told_of_a_registration_may_set_a_new_password_and_void_what_else_was_mailed(
    world: World,
) -> None:
    user = await world.register()
    await world.forget_password()
    mailed = await world.mailed(user)
    await world.register(password=NEW, discreet=True)
    await world.reset_password(await world.mailed(user, Purpose.REGISTRATION), NEW)
    assert await reason(world, mailed) == "MAILED_TOKEN_INVALID"


@pytest.mark.parametrize(
    "token",
    ["", "mt_", "mt_" + "A" * 64, "rt_" + "A" * 64, "mt_" + "!" * 64, "mt_" + "\u00e9" * 64, "a" * 9999],
)
async def test_what_was_never_mailed_is_refused(world: World, token: str) -> None:
    await world.register()
    await world.forget_password()
    assert await reason(world, token) == "MAILED_TOKEN_INVALID"


async def test_a_token_lasts_an_hour(world: World) -> None:
    user = await world.register()
    await world.forget_password()
    token = await world.mailed(user)
    world.clock.advance(timedelta(hours=1))
    assert await reason(world, token) == "MAILED_TOKEN_INVALID"
    with pytest.raises(ServiceError, match="Challenge"):
        await world.mailed(user)


async def test_a_token_for_another_address_is_void(world: World) -> None:
    user = await world.register()
    await world.forget_password()
    token = await world.mailed(user)
    await world.move(user, "new@example.com")
    assert await reason(world, token) == "MAILED_TOKEN_INVALID"


async def test_one_purpose_is_no_proof_for_another(world: World) -> None:
    user = await world.register()
    await ask_to_verify(world, user)
    await world.forget_password()
    await world.mailed(user)
    assert await reason(world, await world.mailed(user, Purpose.EMAIL_VERIFICATION)) == "MAILED_TOKEN_INVALID"


async def test_an_unknown_address_leaves_the_same_trace_and_tells_nobody(world: World) -> None:
    for email in ("nobody@example.com", "no address"):
        before = kept(world).count('"asked"')
        await world.forget_password(email)
        assert kept(world).count('"asked"') == before + 1, "a challenge, as for a known one"
    assert mails(world) == []


async def test_at_most_three_mails_go_out_in_15_minutes_and_the_answer_stays_the_same(world: World) -> None:
    await world.register()
    for _ in range(5):
        await world.forget_password()
    assert len(mails(world)) == 3
    world.clock.advance(timedelta(minutes=15))
    await world.forget_password()
    assert len(mails(world)) == 4


async def test_a_network_address_cannot_mail_the_whole_town(world: World) -> None:
    for number in range(world.limits.failures_per_address):
        await world.forget_password(f"neighbour{number}@example.com", "192.0.2.7")
    with pytest.raises(ServiceError) as raised:
        await world.forget_password("one@example.com", "192.0.2.7")
    assert raised.value.reason == "TOO_MANY_ATTEMPTS"
    await world.forget_password("one@example.com", "192.0.2.8")


async def test_a_reset_lets_in_whoever_was_locked_out(world: World) -> None:
    user = await world.register()
    for _ in range(5):
        with pytest.raises(ServiceError):
            await world.login(password="wrong password")
    await world.forget_password()
    await world.reset_password(await world.mailed(user), NEW)
    assert (await world.login(password=NEW)).user_id == user.id


async def test_an_address_is_verified_by_its_token(world: World) -> None:
    user = await world.register()
    assert not user.email_verified
    await ask_to_verify(world, user)
    await verify(world, await world.mailed(user, Purpose.EMAIL_VERIFICATION))
    stored = await world.store.get(User, user.id)
    assert stored is not None
    assert stored.email_verified
    await ask_to_verify(world, user)
    assert len(mails(world)) == 1, "nothing is sent to a verified address"


async def test_asking_again_and_again_for_the_verification_is_refused(world: World) -> None:
    user = await world.register()
    for _ in range(3):
        await ask_to_verify(world, user)
    with pytest.raises(ServiceError) as raised:
        await ask_to_verify(world, user)
    assert raised.value.reason == "TOO_MANY_ATTEMPTS"


async def test_only_notifications_may_ask_for_a_token(world: World) -> None:
    user, admin = await world.register(), await world.register_admin()
    await world.forget_password()
    for caller in (service_named("orders"), me(admin), me(user)):
        with pytest.raises(ServiceError) as raised:
            await world.issue(user, Purpose.PASSWORD_RESET, caller=caller)
        assert raised.value.code is Code.PERMISSION_DENIED


async def test_no_token_is_kept(world: World) -> None:
    user = await world.register()
    await world.forget_password()
    token = await world.mailed(user)
    challenge = await world.store.get(Challenge, challenge_id(Purpose.PASSWORD_RESET, user.id))
    assert challenge is not None
    assert challenge.issued[0].digest not in repr(challenge)
    assert token not in kept(world)
