"""Proving by password that somebody is who they say, without telling strangers who has an account."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from functions.runtime.errors import ServiceError
from functions.runtime.store.port import Store
from functions.users.domain import Credentials, EmailClaim, User, no_such_user
from functions.users.passwords import Hasher
from functions.users.store import account_key, email_key
from functions.users.throttle import Throttle

_NOBODY = "usr_nobody"


class Proof:
    """Checks passwords, bounded by the throttle.

    Both methods raise UNAUTHENTICATED (INVALID_CREDENTIALS) and RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS).
    """

    def __init__(self, store: Store, hasher: Hasher, throttle: Throttle) -> None:
        self._store = store
        self._hasher = hasher
        self._throttle = throttle

    async def by_email(self, email: str, password: str, client_address: str) -> Credentials:
        """The credentials of the account with this address.

        An unknown address takes every step that a known one takes, so that neither answer nor time tells
        them apart.
        """
        account = account_key(email)

        async def prove() -> Credentials | None:
            claim = await self._store.get(EmailClaim, account)
            return await self._check(claim.user_id if claim else _NOBODY, password)

        credentials = await self._throttle.attempt(account, client_address, prove)
        await self._keep_hash_current(credentials, password)
        return credentials

    async def of_user(self, user: User, password: str) -> Credentials:
        """The credentials of this account; a wrong password counts like one at login."""
        return await self._throttle.attempt(email_key(user.email), "", lambda: self._check(user.id, password))

    async def _check(self, user_id: str, password: str) -> Credentials | None:
        credentials = await self._store.get(Credentials, user_id)
        right = await self._hasher.verify(password, credentials.password_hash if credentials else None)
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
