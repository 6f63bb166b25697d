"""After a restore: tokens of the life before are refused, and a new login works as ever."""

from __future__ import annotations

import pytest

from functions.runtime.errors import ServiceError
from functions.users.challenge import Purpose
from functions.users.devices import Devices
from functions.users.domain import Credentials
from functions.users.keys import KeyRing
from functions.users.tests.world import World


async def test_tokens_of_the_life_before_a_restore_open_nothing(world: World) -> None:
    ada = await world.register()
    before = await world.login()
    await world.forget_password(ada.email)
    mailed = await world.mailed(ada, Purpose.PASSWORD_RESET)

    world.memory.begin_epoch()
    world.restart()

    with pytest.raises(ServiceError) as refused:
        await world.new_verifier().verify(before.access_token)
    assert refused.value.reason == "TOKEN_INVALID"
    with pytest.raises(ServiceError) as refused:
        await world.refresh(before.refresh_token)
    assert refused.value.reason == "REFRESH_TOKEN_REUSED"
    with pytest.raises(ServiceError) as refused:
        await world.reset_password(mailed, "a password of the life before")
    assert refused.value.reason == "MAILED_TOKEN_INVALID"

    after = await world.login()
    assert (await world.new_verifier().verify(after.access_token)).subject == ada.id
    assert (await world.refresh(after.refresh_token)).user_id == ada.id


async def test_processes_that_start_after_a_restore_agree_on_new_keys(world: World) -> None:
    old = await world.keys.ready()
    world.memory.begin_epoch()
    first, second = [await KeyRing(world.store, world.clock).ready() for _ in range(2)]
    assert first.current.kid == second.current.kid != old.current.kid
    assert old.upcoming.kid not in {first.current.kid, first.upcoming.kid}


async def test_a_device_that_was_remembered_before_a_restore_is_a_strangers(world: World) -> None:
    ada = await world.register()
    credentials = await world.store.get(Credentials, ada.id)
    assert credentials
    devices = Devices(world.store, world.clock)
    token = await devices.issue(credentials, None)
    assert await devices.recognise(token, credentials)
    world.memory.begin_epoch()
    assert await devices.recognise(token, credentials) is None
