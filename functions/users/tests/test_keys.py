"""The keys of access tokens."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import jwt
import pytest

from functions.runtime.clock import ManualClock
from functions.runtime.errors import ServiceError
from functions.runtime.key_set import subject_digest
from functions.runtime.store.port import AlreadyDone, IdempotencyRecord
from functions.runtime.store.sqlite.store import SQLiteStore
from functions.users import sessions
from functions.users.keys import KeyRing
from functions.users.keyset import KEY_SET_ID, KeySet
from functions.users.store import MAPPINGS
from functions.users.tests.world import PASSWORD, World

DAY = timedelta(days=1)


async def published(keys: KeyRing) -> list[str]:
    return [key["kid"] for key in json.loads(await keys.jwks())["keys"]]


def signed_by(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


async def test_the_key_set_is_that_of_rfc_7517_and_shows_no_private_key(world: World) -> None:
    keys = json.loads(await world.keys.jwks())["keys"]
    assert len(keys) == 2
    for key in keys:
        assert set(key) == {"kty", "crv", "alg", "use", "kid", "x"}
        assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")


async def test_who_lost_a_role_or_changed_a_password_is_published_as_a_digest_until_their_tokens_expire(
    world: World,
) -> None:
    root, ada = await world.register_admin(), await world.register()
    await world.set_roles(ada, "customer", by=root)
    assert [each.digest for each in (await world.keys.key_set(None, "")).revoked] == [subject_digest(ada.id)]
    world.clock.advance(timedelta(minutes=17))
    assert (await world.keys.key_set(None, "")).revoked == []


async def test_logging_out_here_leaves_the_session_there(world: World) -> None:
    await world.register()
    here, there = await world.login(), await world.login()
    await sessions.logout(here.refresh_token, store=world.store, clock=world.clock)
    verifier = world.new_verifier()
    assert (await verifier.verify(there.access_token)).subject == there.user_id
    with pytest.raises(ServiceError):
        await verifier.verify(here.access_token)


@pytest.mark.parametrize("change", ["roles", "password", "account", "logout", "reuse"])
async def test_a_token_from_before_a_change_is_void_within_a_minute_and_one_from_after_it_is_not(
    world: World, change: str
) -> None:
    root, ada = await world.register_admin(), await world.register()
    session, verifier = await world.login(), world.new_verifier()
    old = session.access_token
    world.clock.advance(timedelta(seconds=24))
    await verifier.verify(old)
    world.clock.advance(timedelta(milliseconds=1))
    if change == "roles":
        await world.set_roles(ada, "customer", by=root)
    elif change == "password":
        await world.change_password(ada, PASSWORD, "another fine password")
    elif change == "logout":
        await sessions.logout(session.refresh_token, store=world.store, clock=world.clock)
    elif change == "reuse":
        await world.refresh(session.refresh_token)
        with pytest.raises(ServiceError):
            await world.refresh(session.refresh_token)
    else:
        await world.delete(ada)
    if change != "account":
        password = "another fine password" if change == "password" else PASSWORD
        await verifier.verify((await world.login(password=password)).access_token)

    world.clock.advance(timedelta(seconds=59))
    with pytest.raises(ServiceError) as void:
        await verifier.verify(old)
    assert void.value.reason == "TOKEN_EXPIRED"


async def test_the_next_key_is_published_before_it_signs(world: World) -> None:
    await world.register()
    old = signed_by((await world.login()).access_token)
    before = await published(world.keys)
    await world.keys.rotate()
    new = signed_by((await world.login()).access_token)
    assert new != old
    assert {old, new} == set(before)


async def test_a_token_of_the_old_key_verifies_until_it_expires_then_the_key_goes(world: World) -> None:
    user = await world.register()
    token = (await world.login()).access_token
    await world.keys.rotate()
    world.clock.advance(timedelta(minutes=14, seconds=59))
    assert (await world.new_verifier().verify(token)).subject == user.id
    assert signed_by(token) in await published(world.keys)
    world.clock.advance(timedelta(minutes=3))
    assert signed_by(token) not in await published(world.keys)
    with pytest.raises(ServiceError):
        await world.new_verifier().verify(token)


async def test_a_retired_key_can_sign_no_more(world: World) -> None:
    await world.keys.rotate()
    keys = await world.store.get(KeySet, KEY_SET_ID)
    assert keys
    assert [key.private for key in keys.retired] == [""]


async def test_another_process_signs_with_the_new_key_within_half_a_minute(world: World) -> None:
    other = KeyRing(world.store, world.clock)
    before, _ = await other.signer()
    await world.keys.rotate()
    assert (await other.signer())[0] == before
    world.clock.advance(timedelta(seconds=30))
    assert (await other.signer())[0] == (await world.keys.signer())[0] != before


async def test_first_starts_at_once_agree_on_one_key_set(tmp_path: Path) -> None:
    clock = ManualClock()
    store = SQLiteStore(tmp_path / "users.db", MAPPINGS, clock)
    sets = await asyncio.gather(*(KeyRing(store, clock).ready() for _ in range(20)))
    assert len({keys.current.kid for keys in sets}) == 1
    assert len({keys.upcoming.kid for keys in sets}) == 1
    await store.close()


async def test_the_sweep_rotates_a_key_that_has_signed_for_30_days(world: World) -> None:
    first, _ = await world.keys.signer()
    await world.keys.sweep(IdempotencyRecord("inbox:1", DAY))
    assert (await world.keys.signer())[0] == first
    world.clock.advance(30 * DAY)
    await world.keys.sweep(IdempotencyRecord("inbox:2", DAY))
    second, _ = await world.keys.signer()
    assert second != first
    await world.keys.sweep(IdempotencyRecord("inbox:3", DAY))
    assert (await world.keys.signer())[0] == second


async def test_a_tick_that_comes_twice_rotates_once(world: World) -> None:
    await world.keys.ready()
    tick = IdempotencyRecord("inbox:1", 365 * DAY)
    world.clock.advance(30 * DAY)
    await world.keys.sweep(tick)
    first, _ = await world.keys.signer()
    world.clock.advance(30 * DAY)
    with pytest.raises(AlreadyDone):
        await world.keys.sweep(tick)
    assert (await world.keys.signer())[0] == first


async def test_sweeps_at_once_rotate_once(world: World) -> None:
    await world.keys.ready()
    world.clock.advance(30 * DAY)
    rings = [KeyRing(world.store, world.clock) for _ in range(5)]
    await asyncio.gather(
        *(ring.sweep(IdempotencyRecord(f"inbox:{number}", DAY)) for number, ring in enumerate(rings))
    )
    keys = await world.keys.ready()
    assert len(keys.retired) == 1


async def test_the_sweep_forgets_retired_keys(world: World) -> None:
    await world.keys.rotate()
    world.clock.advance(timedelta(hours=1))
    await world.keys.sweep(IdempotencyRecord("inbox:1", DAY))
    assert (await world.keys.ready()).retired == []


async def test_a_key_signs_only_once_every_verifier_can_have_read_it(world: World) -> None:
    await world.keys.rotate()
    world.clock.advance(timedelta(seconds=59))
    with pytest.raises(ServiceError) as raised:
        await world.keys.rotate()
    assert (raised.value.reason, raised.value.retry_after) == ("TOO_MANY_ROTATIONS", 1.0)
    world.clock.advance(timedelta(seconds=1))
    await world.keys.rotate()


async def test_keys_cannot_be_rotated_without_end(world: World) -> None:
    for _ in range(8):
        await world.keys.rotate()
        world.clock.advance(timedelta(minutes=1))
    with pytest.raises(ServiceError) as raised:
        await world.keys.rotate()
    assert raised.value.reason == "TOO_MANY_ROTATIONS"
    world.clock.advance(timedelta(seconds=raised.value.retry_after or 0))
    await world.keys.rotate()
