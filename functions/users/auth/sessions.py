"""Use cases of sessions: login, refresh, logout."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, unauthenticated
from functions.runtime.ids import new_id
from functions.runtime.store.port import Changes, Ref, Store
from functions.users.auth.authenticator import LogIn, PasswordAuthenticator
from functions.users.auth.devices import DeviceTokens
from functions.users.auth.revocations import Revocation
from functions.users.auth.throttle import invalid_credentials
from functions.users.auth.tokens import AccessTokens, SessionTokens, new_refresh_token, parse_refresh_token
from functions.users.domain import Credentials, Session, User
from observability.failpoints import failpoints

log = logging.getLogger("shop.users")


class SessionsService:
    """Use cases of sessions. Collaborators are fixed at start; methods are safe to call concurrently."""

    def __init__(
        self,
        store: Store,
        authenticator: PasswordAuthenticator,
        tokens: AccessTokens,
        devices: DeviceTokens,
        clock: Clock,
    ) -> None:
        self._store = store
        self._authenticator = authenticator
        self._tokens = tokens
        self._devices = devices
        self._clock = clock

    async def login(self, command: LogIn) -> SessionTokens:
        """Start a session. Raises UNAUTHENTICATED (INVALID_CREDENTIALS) and RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS)."""
        credentials, device, misfolded = await self._authenticator.authenticate(command)
        user = await self._store.get(User, credentials.id)
        if user is None:
            raise invalid_credentials()  # the account was deleted just now
        if misfolded and user.email_deliverable and not user.email_verified:
            await self._distrust_email(user)
        device = device or await self._devices.of_any_account(command.device_token)
        text, token = new_refresh_token(new_id("ses"), await self._store.epoch())
        session = Session.start(
            token.session_id, credentials, token.digest, self._clock.now(), device.id if device else ""
        )
        with failpoints("users.login"):
            await self._store.update(Session, session.id, lambda _: (session, ()))
        log.info("session_started", extra={"user_id": user.id})
        device_token = await self._devices.issue(credentials, device)
        return SessionTokens(user.id, await self._tokens.sign(user, session), text, device_token)

    async def refresh(self, refresh_token: str) -> SessionTokens:
        """Exchange a refresh token for new tokens.

        A token that was already exchanged ends the session, and the session's access tokens become invalid within a
        minute. The service cannot distinguish an owner who lost the answer from a thief with a copy. So this call must
        not be retried. Raises UNAUTHENTICATED (INVALID_REFRESH_TOKEN, REFRESH_TOKEN_REUSED).
        """
        epoch = await self._store.epoch()
        presented = parse_refresh_token(refresh_token, epoch)
        known = await self._store.get(Session, presented.session_id) if presented else None
        if presented is None or known is None:
            raise _invalid_refresh_token()
        text, successor = new_refresh_token(known.id, epoch)

        def change(found: Sequence[Any]) -> Changes[bool]:
            session: Session | None = found[0]
            credentials: Credentials | None = found[1]
            if session is None or credentials is None or session.has_ended(credentials, self._clock.now()):
                raise _invalid_refresh_token()
            if not session.rotate(presented.digest, successor.digest):
                return Changes(False)
            return Changes(True, put=[session])

        with failpoints("users.refresh"):
            exchanged = await self._store.transact([Ref(Session, known.id), Ref(Credentials, known.user_id)], change)
        if not exchanged:
            await self._end(known.id)  # in a separate transaction, so that a refresh reads only what it needs
            log.warning("refresh_token_reused", extra={"user_id": known.user_id})
            raise unauthenticated("REFRESH_TOKEN_REUSED", "The session was ended for security; log in again.")
        user = await self._store.get(User, known.user_id)
        if user is None:
            raise _invalid_refresh_token()
        return SessionTokens(user.id, await self._tokens.sign(user, known), text)

    async def logout(self, refresh_token: str) -> None:
        """End the session to which the refresh token belongs, even if the token is outdated. Ignore an unknown token.

        The session's access tokens become invalid within a minute.
        """
        token = parse_refresh_token(refresh_token, await self._store.epoch())
        if token is not None and await self._store.get(Session, token.session_id) is not None:
            await self._end(token.session_id)

    async def _end(self, session_id: str) -> None:
        """Delete the session and revoke its access tokens."""
        revocation = Revocation.of_session(session_id, self._clock.now())

        def change(found: Sequence[Any]) -> Changes[None]:
            session: Session | None = found[0]
            return Changes(None, put=[revocation], delete=[session]) if session else Changes(None)

        with failpoints("users.session"):
            await self._store.transact([Ref(Session, session_id), Ref(Revocation, revocation.id)], change)

    async def _distrust_email(self, seen: User) -> None:
        """Stop mail to an address that version 1 of the folding rules derived wrongly (see `emails.FOLDING`).

        The domain of such an address belongs to somebody else.
        """

        def change(user: User | None) -> tuple[User, Sequence[Any]]:
            if user is None:
                raise invalid_credentials()  # the account was deleted just now
            if user.email == seen.email:
                user.mark_undeliverable(self._clock.now(), self._clock.now())
            return user, ()

        await self._store.update(User, seen.id, change)
        log.warning("email_misfolded", extra={"user_id": seen.id})


def _invalid_refresh_token() -> ServiceError:
    return unauthenticated("INVALID_REFRESH_TOKEN", "The session has ended; log in again.")
