"""Proving by password that somebody is who they say, without telling strangers who has an account."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, unauthenticated
from functions.runtime.identity import Identity
from functions.runtime.store.port import Store
from functions.users.devices import Device, Devices
from functions.users.domain import Credentials, EmailClaim, no_such_user
from functions.users.passwords import Hasher
from functions.users.store import account_key, earlier_key
from functions.users.throttle import Throttle

RECENT_LOGIN = timedelta(minutes=5)
_NOBODY = "usr_nobody"


class LoginAttempt(NamedTuple):
    """What somebody shows at a login; `client_address` and `device_token` may be empty."""

    email: str
    password: str
    client_address: str = ""
    device_token: str = ""


class Proved(NamedTuple):
    """Whose password was right, and from which device that is known already.

    `misfolded`: the address, as written today, belongs to another domain than the one that an earlier version made of
    it and keeps as the account's.
    """

    credentials: Credentials
    device: Device | None
    misfolded: bool


class Proof:
    """Checks passwords, bounded by the throttle.

    Its methods raise UNAUTHENTICATED (INVALID_CREDENTIALS) and RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS).
    """

    def __init__(
        self, store: Store, hasher: Hasher, throttle: Throttle, devices: Devices, clock: Clock
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._throttle = throttle
        self._devices = devices
        self._clock = clock

    async def by_email(self, attempt: LoginAttempt) -> Proved:
        """Prove whoever has the account with this address.

        An unknown address takes every step that a known one takes, so that neither answer nor time tells
        them apart.
        """
        account = account_key(attempt.email)
        claim, misfolded = await self._claim(account, attempt.email)
        credentials = await self._store.get(Credentials, claim.user_id if claim else _NOBODY)
        device = await self._devices.recognise(attempt.device_token, credentials)

        async def prove() -> Credentials | None:
            return await self._check(credentials, attempt.password)

        proved = await self._throttle.login(account, credentials, attempt.client_address, device, prove)
        await self._keep_hash_current(proved, attempt.password)
        return Proved(proved, device, misfolded)

    async def reauthenticate(self, caller: Identity, password: str) -> None:
        """Prove that the signed-in caller is who they were at the login, and not somebody with a stolen token.

        Takes their current password or, where none is given, a login of the last five minutes.
        Raises UNAUTHENTICATED (REAUTHENTICATION_REQUIRED) for an older login.
        """
        if password:
            await self.of_user(caller.subject, password)
        elif self._clock.now().timestamp() - caller.auth_time > RECENT_LOGIN.total_seconds():
            raise unauthenticated(
                "REAUTHENTICATION_REQUIRED", "Give the current password, or log in again and repeat this."
            )

    async def of_user(self, user_id: str, password: str) -> Credentials:
        """Return the credentials of an account whose owner is signed in."""
        credentials = await self._store.get(Credentials, user_id)
        whose = f"{user_id}:{credentials.generation if credentials else 1}"
        return await self._throttle.reauthenticate(whose, lambda: self._check(credentials, password))

    async def _claim(self, account: str, email: str) -> tuple[EmailClaim | None, bool]:
        """Find whose address it is; by the rules of earlier versions only where today's find nobody."""
        keys = [key for key in (account, earlier_key(email)) if key]
        claims = await self._store.get_many(EmailClaim, keys)
        current = [claim for key in keys if (claim := claims.get(key)) and claim.is_current]
        for claim in current:
            if claim.id == account or claim.folding == 1:
                return claim, claim.id != account
        return None, False

    async def _check(self, credentials: Credentials | None, password: str) -> Credentials | None:
        # Without a hash (nobody's, or locked) the work is the same, and no password is right.
        known = credentials.password_hash or None if credentials else None
        right = await self._hasher.verify(password, known)
        return credentials if right else None

    async def _keep_hash_current(self, credentials: Credentials, password: str) -> None:
        """Hash again by today's parameters if these are others; a login never fails for it."""
        known = credentials.password_hash
        if not self._hasher.is_outdated(known):
            return

        def change(credentials: Credentials | None) -> tuple[Credentials, Sequence[Any]]:
            if credentials is None:
                raise no_such_user()
            credentials.rehash(known, fresh)
            return credentials, ()

        with contextlib.suppress(ServiceError):
            fresh = await self._hasher.hash(password)
            await self._store.update(Credentials, credentials.id, change)
