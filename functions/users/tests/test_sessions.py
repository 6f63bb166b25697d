"""Login, refresh, logout, change of password."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from functions.runtime.errors import Code, ServiceError
from functions.users.auth.tokens import SessionTokens, parse_refresh_token
from functions.users.domain import Credentials, Session
from functions.users.service import ChangePassword
from functions.users.tests.accounts import (
    AUDIENCE,
    ISSUER,
    PASSWORD,
    Accounts,
    cheap_hasher,
    claims_of,
    identity_of,
)


async def refused(accounts: Accounts, refresh_token: str) -> str:
    with pytest.raises(ServiceError) as raised:
        await accounts.refresh(refresh_token)
    assert raised.value.code is Code.UNAUTHENTICATED
    return raised.value.reason


async def test_an_access_token_contains_identity_and_roles_for_15_minutes(accounts: Accounts) -> None:
    user = await accounts.register()
    tokens = await accounts.login(" ADA@example.com ")
    claims = claims_of(tokens.access_token)
    now = int(accounts.clock.now().timestamp())
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


async def test_an_access_token_verifies_by_the_published_keys_until_it_expires(accounts: Accounts) -> None:
    user = await accounts.register()
    token = (await accounts.login()).access_token
    verifier = accounts.new_verifier()
    identity = await verifier.verify(token)
    assert (identity.subject, identity.roles) == (user.id, frozenset({"customer"}))
    accounts.clock.advance(timedelta(minutes=15))
    with pytest.raises(ServiceError) as raised:
        await verifier.verify(token)
    assert raised.value.reason == "TOKEN_EXPIRED"


async def test_a_refreshed_token_keeps_the_time_of_the_login(accounts: Accounts) -> None:
    await accounts.register()
    login = accounts.clock.now().timestamp()
    tokens, verifier = await accounts.login(), accounts.new_verifier()
    for _ in range(3):
        accounts.clock.advance(timedelta(minutes=5))
        tokens = await accounts.refresh(tokens.refresh_token)
    assert claims_of(tokens.access_token)["auth_time"] == login
    assert (await verifier.verify(tokens.access_token)).auth_time == login


async def test_no_two_tokens_are_the_same(accounts: Accounts) -> None:
    await accounts.register()
    first, second = await accounts.login(), await accounts.login()
    assert claims_of(first.access_token)["jti"] != claims_of(second.access_token)["jti"]
    assert first.refresh_token != second.refresh_token


async def test_refreshing_exchanges_the_token_for_the_next_one(accounts: Accounts) -> None:
    user = await accounts.register()
    tokens = await accounts.login()
    for _ in range(3):
        accounts.clock.advance(timedelta(minutes=14))
        following = await accounts.refresh(tokens.refresh_token)
        assert following.refresh_token != tokens.refresh_token
        assert (await accounts.new_verifier().verify(following.access_token)).subject == user.id
        tokens = following


async def test_reusing_an_exchanged_token_ends_the_whole_session(accounts: Accounts) -> None:
    await accounts.register()
    stolen = await accounts.login()
    bystander = await accounts.login()
    latest = await accounts.refresh((await accounts.refresh(stolen.refresh_token)).refresh_token)
    assert await refused(accounts, stolen.refresh_token) == "REFRESH_TOKEN_REUSED"
    assert await refused(accounts, latest.refresh_token) == "INVALID_REFRESH_TOKEN"
    assert await refused(accounts, stolen.refresh_token) == "INVALID_REFRESH_TOKEN"
    await accounts.refresh(bystander.refresh_token)  # another session of the same person goes on


async def test_one_of_two_simultaneous_refreshes_gets_tokens_and_both_lose_the_session(
    accounts: Accounts,
) -> None:
    await accounts.register()
    token = (await accounts.login()).refresh_token
    tries = await asyncio.gather(accounts.refresh(token), accounts.refresh(token), return_exceptions=True)
    won = [each for each in tries if not isinstance(each, BaseException)]
    assert len(won) == 1
    assert await refused(accounts, won[0].refresh_token) == "INVALID_REFRESH_TOKEN"


@pytest.mark.parametrize(
    "token", ["", "rt_", "x" * 67, "rt_" + "A" * 64, "rt_" + "!" * 64, "rt_" + "é" * 64, "a" * 9999]
)
async def test_a_token_that_was_never_issued_is_invalid(accounts: Accounts, token: str) -> None:
    assert await refused(accounts, token) == "INVALID_REFRESH_TOKEN"
    await accounts.sessions.logout(token)


async def test_a_session_lives_30_days_however_often_it_is_refreshed(accounts: Accounts) -> None:
    await accounts.register()
    token = (await accounts.login()).refresh_token
    for _ in range(3):
        accounts.clock.advance(timedelta(days=9, hours=23))
        token = (await accounts.refresh(token)).refresh_token
    accounts.clock.advance(timedelta(days=1))
    assert await refused(accounts, token) == "INVALID_REFRESH_TOKEN"
    assert await accounts.store.expire(accounts.clock.now()) > 0, "the sweep removes it"
    assert "ses_" not in str(accounts.memory.__dict__)


async def test_logging_out_ends_the_session_of_any_of_its_tokens(accounts: Accounts) -> None:
    await accounts.register()
    first = await accounts.login()
    second = await accounts.refresh(first.refresh_token)
    await accounts.logout(first)
    await accounts.logout(first)
    assert await refused(accounts, second.refresh_token) == "INVALID_REFRESH_TOKEN"


async def test_only_the_digest_of_a_refresh_token_is_stored(accounts: Accounts) -> None:
    await accounts.register()
    text = (await accounts.login()).refresh_token
    parsed = parse_refresh_token(text, 0)
    assert parsed
    session = await accounts.store.get(Session, parsed.session_id)
    assert session
    assert session.token_digest == parsed.digest
    assert text not in repr(vars(session))
    assert len(text) == 3 + 64


async def test_changing_the_password_ends_every_session_and_the_old_password(accounts: Accounts) -> None:
    user = await accounts.register()
    first, second = await accounts.login(), await accounts.login()
    await accounts.change_password(user, PASSWORD, "another fine password")
    for tokens in (first, second):
        assert await refused(accounts, tokens.refresh_token) == "INVALID_REFRESH_TOKEN"
    with pytest.raises(ServiceError):
        await accounts.login()
    await accounts.refresh((await accounts.login(password="another fine password")).refresh_token)


async def test_changing_the_password_needs_the_current_one_and_a_valid_new_one(accounts: Accounts) -> None:
    user = await accounts.register()
    with pytest.raises(ServiceError) as raised:
        await accounts.change_password(user, "not the password", "another fine password")
    assert (raised.value.code, raised.value.reason) == (Code.UNAUTHENTICATED, "INVALID_CREDENTIALS")
    with pytest.raises(ServiceError) as raised:
        await accounts.change_password(user, PASSWORD, "short")
    assert raised.value.violations[0].field == "new_password"
    eve = await accounts.register("eve@example.com")
    command = ChangePassword(user.id, PASSWORD, "another fine password")
    with pytest.raises(ServiceError) as raised:
        await accounts.users.change_password(command, identity_of(eve))
    assert raised.value.code is Code.PERMISSION_DENIED
    await accounts.login()


async def test_one_of_two_simultaneous_password_changes_succeeds(accounts: Accounts) -> None:
    user = await accounts.register()
    news = ["another fine password", "yet another password"]
    tries = await asyncio.gather(
        *(accounts.change_password(user, PASSWORD, new) for new in news), return_exceptions=True
    )
    assert sum(each is None for each in tries) == 1


async def test_a_login_rehashes_when_the_parameters_have_changed(accounts: Accounts) -> None:
    user = await accounts.register()
    before = await accounts.store.get(Credentials, user.id)
    tokens = await accounts.login()
    unchanged = await accounts.store.get(Credentials, user.id)
    stronger = cheap_hasher(time_cost=2)
    accounts.restart(stronger)
    await accounts.login()
    after = await accounts.store.get(Credentials, user.id)
    assert before
    assert after
    assert unchanged == before
    assert after.password_hash != before.password_hash
    assert "t=2" in after.password_hash
    await accounts.login()
    await accounts.refresh(tokens.refresh_token)  # the password is the same: sessions go on
    await stronger.close()


async def test_a_password_is_the_same_from_every_keyboard(accounts: Accounts) -> None:
    await accounts.register(password="Zoe\u0308 and the horse")
    await accounts.login(password="Zoë and the horse")


async def device_of(accounts: Accounts, tokens: SessionTokens) -> str:
    return (await accounts.new_verifier().verify(tokens.access_token)).device


async def test_an_access_token_names_the_device_that_was_known_at_login(accounts: Accounts) -> None:
    await accounts.register()
    first = await accounts.login()
    again = await accounts.login(device_token=first.device_token)
    assert await device_of(accounts, first) == ""
    device = await device_of(accounts, again)
    assert device
    assert await device_of(accounts, await accounts.refresh(again.refresh_token)) == device


async def test_a_device_stays_the_same_from_account_to_account(accounts: Accounts) -> None:
    await accounts.register()
    await accounts.register("bob@example.com")
    token = (await accounts.login()).device_token
    ada = await accounts.login(device_token=token)
    bob = await accounts.login("bob@example.com", device_token=ada.device_token)
    assert await device_of(accounts, bob) == await device_of(accounts, ada) != ""
    again = await accounts.login("bob@example.com", device_token=bob.device_token)
    assert await device_of(accounts, again) == await device_of(accounts, ada)


async def test_an_erased_account_leaves_no_device_behind(accounts: Accounts) -> None:
    ada = await accounts.register()
    await accounts.register("bob@example.com")
    token = (await accounts.login()).device_token
    await accounts.delete(ada)
    assert await device_of(accounts, await accounts.login("bob@example.com", device_token=token)) == ""
