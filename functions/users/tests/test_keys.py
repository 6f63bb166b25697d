"""The keys of access tokens."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest

from events.catalog import SweepDue
from functions.runtime.clock import ManualClock
from functions.runtime.errors import ServiceError
from functions.runtime.identity import ADMIN, Identity
from functions.runtime.inbox import InboxRecord
from functions.runtime.key_set import subject_digest
from functions.runtime.store.port import AlreadyDone
from functions.runtime.store.sqlite.store import SQLiteStore
from functions.users.auth.signing_keys import KEY_SET_ID, SigningKeySet, SigningKeysService
from functions.users.store import MAPPINGS
from functions.users.tests.accounts import PASSWORD, Accounts

DAY = timedelta(days=1)
ROOT = Identity("usr_root", frozenset({ADMIN}))


def tick(number: int) -> InboxRecord:
    """The inbox record of one tick, which outlives two rotations."""
    time = datetime(2030, 1, 1, tzinfo=UTC)
    return InboxRecord(f"inbox:{number}", 365 * DAY, source="/sweep", event_id=str(number), time=time)


async def published(keys: SigningKeysService) -> list[str]:
    return [key["kid"] for key in json.loads(await keys.jwks())["keys"]]


def signed_by(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


async def test_the_key_set_is_that_of_rfc_7517_and_shows_no_private_key(accounts: Accounts) -> None:
    keys = json.loads(await accounts.keys.jwks())["keys"]
    assert len(keys) == 2
    for key in keys:
        assert set(key) == {"kty", "crv", "alg", "use", "kid", "x"}
        assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")


async def test_a_revocation_is_published_as_a_digest_until_its_tokens_expire(
    accounts: Accounts,
) -> None:
    root, ada = await accounts.register_admin(), await accounts.register()
    await accounts.set_roles(ada, "customer", by=root)
    assert [each.digest for each in (await accounts.keys.key_set(None, "")).revoked] == [subject_digest(ada.id)]
    accounts.clock.advance(timedelta(minutes=17))
    assert (await accounts.keys.key_set(None, "")).revoked == []


async def test_logging_out_of_one_session_keeps_another(accounts: Accounts) -> None:
    await accounts.register()
    here, there = await accounts.login(), await accounts.login()
    await accounts.logout(here)
    verifier = accounts.new_verifier()
    assert (await verifier.verify(there.access_token)).subject == there.user_id
    with pytest.raises(ServiceError):
        await verifier.verify(here.access_token)


@pytest.mark.parametrize("change", ["roles", "password", "account", "logout", "reuse"])
async def test_a_token_from_before_a_change_is_invalid_within_a_minute_and_one_from_after_it_is_valid(
    accounts: Accounts, change: str
) -> None:
    root, ada = await accounts.register_admin(), await accounts.register()
    session, verifier = await accounts.login(), accounts.new_verifier()
    old = session.access_token
    accounts.clock.advance(timedelta(seconds=24))
    await verifier.verify(old)
    accounts.clock.advance(timedelta(milliseconds=1))
    if change == "roles":
        await accounts.set_roles(ada, "customer", by=root)
    elif change == "password":
        await accounts.change_password(ada, PASSWORD, "another fine password")
    elif change == "logout":
        await accounts.logout(session)
    elif change == "reuse":
        await accounts.refresh(session.refresh_token)
        with pytest.raises(ServiceError):
            await accounts.refresh(session.refresh_token)
    else:
        await accounts.delete(ada)
    if change != "account":
        password = "another fine password" if change == "password" else PASSWORD
        await verifier.verify((await accounts.login(password=password)).access_token)

    accounts.clock.advance(timedelta(seconds=59))
    with pytest.raises(ServiceError) as void:
        await verifier.verify(old)
    assert void.value.reason == "TOKEN_EXPIRED"


async def test_the_next_key_is_published_before_it_signs(accounts: Accounts) -> None:
    await accounts.register()
    old = signed_by((await accounts.login()).access_token)
    before = await published(accounts.keys)
    await accounts.keys.rotate(ROOT)
    new = signed_by((await accounts.login()).access_token)
    assert new != old
    assert {old, new} == set(before)


async def test_a_token_of_a_retired_key_verifies_until_it_expires(accounts: Accounts) -> None:
    user = await accounts.register()
    token = (await accounts.login()).access_token
    await accounts.keys.rotate(ROOT)
    accounts.clock.advance(timedelta(minutes=14, seconds=59))
    assert (await accounts.new_verifier().verify(token)).subject == user.id
    assert signed_by(token) in await published(accounts.keys)
    accounts.clock.advance(timedelta(minutes=3))
    assert signed_by(token) not in await published(accounts.keys)
    with pytest.raises(ServiceError):
        await accounts.new_verifier().verify(token)


async def test_a_retired_key_cannot_sign(accounts: Accounts) -> None:
    await accounts.keys.rotate(ROOT)
    keys = await accounts.store.get(SigningKeySet, KEY_SET_ID)
    assert keys
    assert [key.private for key in keys.retired] == [""]


async def test_another_process_signs_with_the_new_key_within_half_a_minute(accounts: Accounts) -> None:
    other = SigningKeysService(accounts.store, accounts.clock)
    before, _ = await other.signer()
    await accounts.keys.rotate(ROOT)
    assert (await other.signer())[0] == before
    accounts.clock.advance(timedelta(seconds=30))
    assert (await other.signer())[0] == (await accounts.keys.signer())[0] != before


async def test_simultaneous_first_starts_agree_on_one_key_set(tmp_path: Path) -> None:
    clock = ManualClock()
    store = SQLiteStore(tmp_path / "users.db", MAPPINGS, clock)
    sets = await asyncio.gather(*(SigningKeysService(store, clock).ensure() for _ in range(20)))
    assert len({keys.current.kid for keys in sets}) == 1
    assert len({keys.upcoming.kid for keys in sets}) == 1
    await store.close()


async def test_the_sweep_rotates_a_key_that_has_signed_for_30_days(accounts: Accounts) -> None:
    first, _ = await accounts.keys.signer()
    await accounts.keys.on_sweep_due(SweepDue(), tick(1))
    assert (await accounts.keys.signer())[0] == first
    accounts.clock.advance(30 * DAY)
    await accounts.keys.on_sweep_due(SweepDue(), tick(2))
    second, _ = await accounts.keys.signer()
    assert second != first
    await accounts.keys.on_sweep_due(SweepDue(), tick(3))
    assert (await accounts.keys.signer())[0] == second


async def test_a_tick_that_arrives_twice_rotates_once(accounts: Accounts) -> None:
    await accounts.keys.ensure()
    once = tick(1)
    accounts.clock.advance(30 * DAY)
    await accounts.keys.on_sweep_due(SweepDue(), once)
    first, _ = await accounts.keys.signer()
    accounts.clock.advance(30 * DAY)
    with pytest.raises(AlreadyDone):
        await accounts.keys.on_sweep_due(SweepDue(), once)
    assert (await accounts.keys.signer())[0] == first


async def test_simultaneous_sweeps_rotate_once(accounts: Accounts) -> None:
    await accounts.keys.ensure()
    accounts.clock.advance(30 * DAY)
    processes = [SigningKeysService(accounts.store, accounts.clock) for _ in range(5)]
    await asyncio.gather(*(keys.on_sweep_due(SweepDue(), tick(number)) for number, keys in enumerate(processes)))
    keys = await accounts.keys.ensure()
    assert len(keys.retired) == 1


async def test_the_sweep_deletes_retired_keys(accounts: Accounts) -> None:
    await accounts.keys.rotate(ROOT)
    accounts.clock.advance(timedelta(hours=1))
    await accounts.keys.on_sweep_due(SweepDue(), tick(1))
    assert (await accounts.keys.ensure()).retired == []


async def test_a_key_signs_once_every_verifier_has_had_time_to_read_it(accounts: Accounts) -> None:
    await accounts.keys.rotate(ROOT)
    accounts.clock.advance(timedelta(seconds=59))
    with pytest.raises(ServiceError) as raised:
        await accounts.keys.rotate(ROOT)
    assert (raised.value.reason, raised.value.retry_after) == ("TOO_MANY_ROTATIONS", 1.0)
    accounts.clock.advance(timedelta(seconds=1))
    await accounts.keys.rotate(ROOT)


async def test_keys_cannot_be_rotated_without_limit(accounts: Accounts) -> None:
    for _ in range(8):
        await accounts.keys.rotate(ROOT)
        accounts.clock.advance(timedelta(minutes=1))
    with pytest.raises(ServiceError) as raised:
        await accounts.keys.rotate(ROOT)
    assert raised.value.reason == "TOO_MANY_ROTATIONS"
    accounts.clock.advance(timedelta(seconds=raised.value.retry_after or 0))
    await accounts.keys.rotate(ROOT)
