"""After a restore tokens from before it are refused, and a new login works."""

from __future__ import annotations

import pytest

from functions.runtime.errors import ServiceError
from functions.users.auth.challenges import Purpose
from functions.users.auth.devices import DeviceTokens
from functions.users.auth.signing_keys import SigningKeysService
from functions.users.domain import Credentials
from functions.users.tests.accounts import Accounts


async def test_tokens_from_before_a_restore_are_refused(accounts: Accounts) -> None:
    ada = await accounts.register()
    before = await accounts.login()
    await accounts.request_reset(ada.email)
    mailed = await accounts.mailed_token(ada, Purpose.PASSWORD_RESET)

    accounts.memory.begin_epoch()
    accounts.restart()

    with pytest.raises(ServiceError) as refused:
        await accounts.new_verifier().verify(before.access_token)
    assert refused.value.reason == "TOKEN_INVALID"
    with pytest.raises(ServiceError) as refused:
        await accounts.refresh(before.refresh_token)
    assert refused.value.reason == "REFRESH_TOKEN_REUSED"
    with pytest.raises(ServiceError) as refused:
        await accounts.reset_password(mailed, "a password of the life before")
    assert refused.value.reason == "MAILED_TOKEN_INVALID"

    after = await accounts.login()
    assert (await accounts.new_verifier().verify(after.access_token)).subject == ada.id
    assert (await accounts.refresh(after.refresh_token)).user_id == ada.id


async def test_processes_that_start_after_a_restore_agree_on_new_keys(accounts: Accounts) -> None:
    old = await accounts.keys.ensure()
    accounts.memory.begin_epoch()
    first, second = [await SigningKeysService(accounts.store, accounts.clock).ensure() for _ in range(2)]
    assert first.current.kid == second.current.kid != old.current.kid
    assert old.upcoming.kid not in {first.current.kid, first.upcoming.kid}


async def test_a_device_known_before_a_restore_is_unknown_after_it(accounts: Accounts) -> None:
    ada = await accounts.register()
    credentials = await accounts.store.get(Credentials, ada.id)
    assert credentials
    devices = DeviceTokens(accounts.store, accounts.clock)
    token = await devices.issue(credentials, None)
    assert await devices.recognise(token, credentials)
    accounts.memory.begin_epoch()
    assert await devices.recognise(token, credentials) is None
