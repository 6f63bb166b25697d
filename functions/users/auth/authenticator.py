"""Authentication by password that does not reveal which addresses have an account."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, unauthenticated
from functions.runtime.identity import Identity
from functions.runtime.store.port import Store
from functions.users.auth.devices import DeviceTokens, KnownDevice
from functions.users.auth.passwords import PasswordHasher
from functions.users.auth.throttle import Throttle
from functions.users.domain import Credentials, EmailClaim, no_such_user
from functions.users.emails import account_key, legacy_email_key

RECENT_LOGIN = timedelta(minutes=5)
_NO_USER_ID = "usr_nobody"


@dataclass(frozen=True, repr=False)
class LogIn:
    """Start a session. `client_address` and `device_token` are empty if they are unknown."""

    email: str
    password: str
    client_address: str = ""
    device_token: str = ""


class Authenticated(NamedTuple):
    """The account whose password was correct, and the device if it is already known.

    `misfolded` is true if only version 1 of the folding rules found the account (see `emails.FOLDING`). Its address
    then has another domain than the address that was entered.
    """

    credentials: Credentials
    device: KnownDevice | None
    misfolded: bool


class PasswordAuthenticator:
    """Checks passwords, with the limits of the throttle.

    Its methods raise UNAUTHENTICATED (INVALID_CREDENTIALS) and RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS).
    """

    def __init__(
        self, store: Store, hasher: PasswordHasher, throttle: Throttle, devices: DeviceTokens, clock: Clock
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._throttle = throttle
        self._devices = devices
        self._clock = clock

    async def authenticate(self, command: LogIn) -> Authenticated:
        """Check the password of the account with this address.

        An unknown address goes through the same steps as a known address, so that neither the answer nor its time
        reveals whether there is an account.
        """
        account = account_key(command.email)
        claim, misfolded = await self._find_claim(account, command.email)
        credentials = await self._store.get(Credentials, claim.user_id if claim else _NO_USER_ID)
        device = await self._devices.recognise(command.device_token, credentials)

        async def check() -> Credentials | None:
            return await self._check(credentials, command.password)

        found = await self._throttle.login(account, credentials, command.client_address, device, check)
        await self._rehash_if_outdated(found, command.password)
        return Authenticated(found, device, misfolded)

    async def reauthenticate(self, caller: Identity, password: str) -> None:
        """Require that the signed-in caller is the account's owner, and not somebody with a stolen token.

        Accepts the caller's current password or, if `password` is empty, a login of the last five minutes. Raises
        UNAUTHENTICATED (REAUTHENTICATION_REQUIRED) for an older login.
        """
        if password:
            await self.check_current(caller.subject, password)
        elif self._clock.now().timestamp() - caller.auth_time > RECENT_LOGIN.total_seconds():
            raise unauthenticated(
                "REAUTHENTICATION_REQUIRED", "Give the current password, or log in again and repeat this."
            )

    async def check_current(self, user_id: str, password: str) -> Credentials:
        """Check the current password of an account whose owner is signed in, and return its credentials."""
        credentials = await self._store.get(Credentials, user_id)
        subject = f"{user_id}:{credentials.generation if credentials else 1}"
        return await self._throttle.reauthentication(subject, lambda: self._check(credentials, password))

    async def _find_claim(self, account: str, email: str) -> tuple[EmailClaim | None, bool]:
        """Return the claim of an address, and whether only version 1 of the rules found it (see `emails.FOLDING`)."""
        keys = [key for key in (account, legacy_email_key(email)) if key]
        claims = await self._store.get_many(EmailClaim, keys)
        current = [claim for key in keys if (claim := claims.get(key)) and claim.is_current]
        for claim in current:
            if claim.id == account or claim.folding == 1:
                return claim, claim.id != account
        return None, False

    async def _check(self, credentials: Credentials | None, password: str) -> Credentials | None:
        # Without a hash (no account, or a locked account), `verify` takes as long and returns False.
        known = credentials.password_hash or None if credentials else None
        right = await self._hasher.verify(password, known)
        return credentials if right else None

    async def _rehash_if_outdated(self, credentials: Credentials, password: str) -> None:
        """Hash the password again if the hash parameters have changed. A failure does not fail the login."""
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
