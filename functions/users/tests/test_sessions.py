"""Login, refresh, logout, change of password."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from functions.runtime.errors import Code, ServiceError
from functions.users import sessions
from functions.users.domain import Credentials, Session
from functions.users.tests.world import AUDIENCE, ISSUER, PASSWORD, World, cheap_hasher, claims_of, me
from functions.users.tokens import parse_refresh_token


async def refused(world: World, refresh_token: str) -> str:
    with pytest.raises(ServiceError) as raised:
        await world.refresh(refresh_token)
    assert raised.value.code is Code.UNAUTHENTICATED
    return raised.value.reason


async def test_an_access_token_says_who_and_what_for_15_minutes(world: World) -> None:
    user = await world.register()
    tokens = await world.login(" ADA@example.com ")
    claims = claims_of(tokens.access_token)
    now = int(world.clock.now().timestamp())
    assert claims.pop("jti")
    assert claims.pop("sid").startswith("ses_")
    assert claims == {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": user.id,
        "iat": now,
        "auth_time": now,
        "exp": now + 900,
        "roles": ["customer"],
        "typ": "access",
    }
    assert (tokens.user_id, tokens.expires_in) == (user.id, 900)


async def test_an_access_token_verifies_by_the_published_keys_until_it_expires(world: World) -> None:
    user = await world.register()
    token = (await world.login()).access_token
    verifier = world.new_verifier()
    identity = await verifier.verify(token)
    assert (identity.subject, identity.roles) == (user.id, frozenset({"customer"}))
    world.clock.advance(timedelta(minutes=15))
    with pytest.raises(ServiceError) as raised:
        await verifier.verify(token)
    assert raised.value.reason == "TOKEN_EXPIRED"


async def test_a_refreshed_token_keeps_the_time_of_the_login(world: World) -> None:
    await world.register()
    login = world.clock.now().timestamp()
    tokens, verifier = await world.login(), world.new_verifier()
    for _ in range(3):
        world.clock.advance(timedelta(minutes=5))
        tokens = await world.refresh(tokens.refresh_token)
    assert claims_of(tokens.access_token)["auth_time"] == login
    assert (await verifier.verify(tokens.access_token)).auth_time == login


async def test_no_two_tokens_are_the_same(world: World) -> None:
    await world.register()
    first, second = await world.login(), await world.login()
    assert claims_of(first.access_token)["jti"] != claims_of(second.access_token)["jti"]
    assert first.refresh_token != second.refresh_token


async def test_refreshing_trades_the_token_for_the_next_one(world: World) -> None:
    user = await world.register()
    tokens = await world.login()
    for _ in range(3):
        world.clock.advance(timedelta(minutes=14))
        following = await world.refresh(tokens.refresh_token)
        assert following.refresh_token != tokens.refresh_token
        assert (await world.new_verifier().verify(following.access_token)).subject == user.id
        tokens = following


async def test_using_a_traded_token_again_ends_the_whole_session(world: World) -> None:
    await world.register()
    stolen = await world.login()
    bystander = await world.login()
    latest = await world.refresh((await world.refresh(stolen.refresh_token)).refresh_token)
    assert await refused(world, stolen.refresh_token) == "REFRESH_TOKEN_REUSED"
    assert await refused(world, latest.refresh_token) == "INVALID_REFRESH_TOKEN"
    assert await refused(world, stolen.refresh_token) == "INVALID_REFRESH_TOKEN"
    await world.refresh(bystander.refresh_token)  # another session of the same person goes on


async def test_of_two_who_trade_one_token_at_once_one_gets_tokens_and_both_lose_the_session(
    world: World,
) -> None:
    await world.register()
    token = (await world.login()).refresh_token
    tries = await asyncio.gather(world.refresh(token), world.refresh(token), return_exceptions=True)
    won = [each for each in tries if not isinstance(each, BaseException)]
    assert len(won) == 1
    assert await refused(world, won[0].refresh_token) == "INVALID_REFRESH_TOKEN"


@pytest.mark.parametrize(
    "token", ["", "rt_", "x" * 67, "rt_" + "A" * 64, "rt_" + "!" * 64, "rt_" + "é" * 64, "a" * 9999]
)
async def test_a_token_that_was_never_given_out_is_invalid(world: World, token: str) -> None:
    assert await refused(world, token) == "INVALID_REFRESH_TOKEN"
    await sessions.logout(token, store=world.store, clock=world.clock)


async def test_a_session_lives_30_days_however_often_it_is_refreshed(world: World) -> None:
    await world.register()
    token = (await world.login()).refresh_token
    for _ in range(3):
        world.clock.advance(timedelta(days=9, hours=23))
        token = (await world.refresh(token)).refresh_token
    world.clock.advance(timedelta(days=1))
    assert await refused(world, token) == "INVALID_REFRESH_TOKEN"
    assert await world.store.expire(world.clock.now()) > 0, "the sweep removes it"
    assert "ses_" not in str(world.memory.__dict__)


async def test_logging_out_ends_the_session_of_any_of_its_tokens(world: World) -> None:
    await world.register()
    first = await world.login()
    second = await world.refresh(first.refresh_token)
    await sessions.logout(first.refresh_token, store=world.store, clock=world.clock)
    await sessions.logout(first.refresh_token, store=world.store, clock=world.clock)
    assert await refused(world, second.refresh_token) == "INVALID_REFRESH_TOKEN"


async def test_the_store_knows_no_refresh_token_only_its_digest(world: World) -> None:
    await world.register()
    text = (await world.login()).refresh_token
    parsed = parse_refresh_token(text, 0)
    assert parsed
    session = await world.store.get(Session, parsed.session_id)
    assert session
    assert session.token_digest == parsed.digest
    assert text not in repr(vars(session))
    assert len(text) == 3 + 64


async def test_changing_the_password_ends_every_session_and_the_old_password(world: World) -> None:
    user = await world.register()
    first, second = await world.login(), await world.login()
    await world.change_password(user, PASSWORD, "another fine password")
    for tokens in (first, second):
        assert await refused(world, tokens.refresh_token) == "INVALID_REFRESH_TOKEN"
    with pytest.raises(ServiceError):
        await world.login()
    await world.refresh((await world.login(password="another fine password")).refresh_token)


async def test_changing_the_password_takes_the_present_one_and_a_good_new_one(world: World) -> None:
    user = await world.register()
    with pytest.raises(ServiceError) as raised:
        await world.change_password(user, "not the password", "another fine password")
    assert (raised.value.code, raised.value.reason) == (Code.UNAUTHENTICATED, "INVALID_CREDENTIALS")
    with pytest.raises(ServiceError) as raised:
        await world.change_password(user, PASSWORD, "short")
    assert raised.value.violations[0].field == "new_password"
    eve = await world.register("eve@example.com")
    with pytest.raises(ServiceError) as raised:
        await sessions.change_password(
            user.id,
            PASSWORD,
            "another fine password",
            me(eve),
            store=world.store,
            hasher=world.hasher,
            proof=world.proof,
            clock=world.clock,
        )
    assert raised.value.code is Code.PERMISSION_DENIED
    await world.login()


async def test_of_two_changes_of_the_password_at_once_one_holds(world: World) -> None:
    user = await world.register()
    news = ["another fine password", "yet another password"]
    tries = await asyncio.gather(
        *(world.change_password(user, PASSWORD, new) for new in news), return_exceptions=True
    )
    assert sum(each is None for each in tries) == 1


async def test_a_login_hashes_anew_when_the_parameters_have_changed(world: World) -> None:
    user = await world.register()
    before = await world.store.get(Credentials, user.id)
    tokens = await world.login()
    unchanged = await world.store.get(Credentials, user.id)
    stronger = cheap_hasher(time_cost=2)
    world.proof = world.new_proof(stronger)
    await world.login()
    after = await world.store.get(Credentials, user.id)
    assert before
    assert after
    assert unchanged == before
    assert after.password_hash != before.password_hash
    assert "t=2" in after.password_hash
    await world.login()
    await world.refresh(tokens.refresh_token)  # the password is the same: sessions go on
    await stronger.close()


async def test_a_password_is_the_same_from_every_keyboard(world: World) -> None:
    await world.register(password="Zoe\u0308 and the horse")
    await world.login(password="Zoë and the horse")
