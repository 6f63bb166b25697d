"""Use cases of sessions: login, refresh, logout, change of password."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, unauthenticated
from functions.runtime.identity import Identity, require_self_or_admin
from functions.runtime.store.port import Changes, Ref, Store
from functions.users.domain import Credentials, EmailClaim, Session, User, no_such_user
from functions.users.passwords import Hasher
from functions.users.rules import check_password
from functions.users.store import account_key, email_key
from functions.users.throttle import Throttle, wrong_credentials
from functions.users.tokens import (
    AccessTokens,
    RefreshToken,
    Tokens,
    new_refresh_token,
    new_session_id,
    parse_refresh_token,
)

log = logging.getLogger("shop.users")

_NOBODY = "usr_nobody"


async def login(
    email: str,
    password: str,
    client_address: str,
    *,
    store: Store,
    hasher: Hasher,
    tokens: AccessTokens,
    throttle: Throttle,
    clock: Clock,
) -> Tokens:
    """Start a session.

    An unknown e-mail address takes every step that a known one takes, so that neither answer nor time tells
    them apart. Raises UNAUTHENTICATED (INVALID_CREDENTIALS), RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS).
    """
    account = account_key(email)

    async def prove() -> Credentials | None:
        claim = await store.get(EmailClaim, account)
        return await _prove(claim.user_id if claim else _NOBODY, password, store=store, hasher=hasher)

    credentials = await throttle.attempt(account, client_address, prove)
    user = await store.get(User, credentials.id)
    if user is None:
        raise wrong_credentials()  # deleted just now
    await _keep_hash_current(credentials, password, store=store, hasher=hasher)
    text, token = new_refresh_token(new_session_id())
    session = Session.start(token.session_id, credentials, token.digest, clock.now())
    await store.update(Session, session.id, lambda _: (session, ()))
    log.info("session_started", extra={"user_id": user.id})
    return Tokens(user.id, await tokens.mint(user), text)


async def refresh(refresh_token: str, *, store: Store, tokens: AccessTokens, clock: Clock) -> Tokens:
    """Trade a refresh token for new tokens.

    Strict: a token that was traded before ends the session, even at once and by its owner, whose lost answer
    cannot be told from a thief's copy. So nobody may retry this call. Raises UNAUTHENTICATED
    (INVALID_REFRESH_TOKEN, REFRESH_TOKEN_REUSED).
    """
    presented = parse_refresh_token(refresh_token)
    known = await store.get(Session, presented.session_id) if presented else None
    if presented is None or known is None:
        raise _invalid_refresh_token()
    text, successor = new_refresh_token(known.id)

    def change(found: Sequence[Any]) -> Changes[bool]:
        session: Session | None = found[0]
        credentials: Credentials | None = found[1]
        if session is None or credentials is None or session.is_over(credentials, clock.now()):
            raise _invalid_refresh_token()
        if not session.rotate(presented.digest, successor.digest):
            return Changes(False, delete=[session])
        return Changes(True, put=[session])

    if not await store.transact([Ref(Session, known.id), Ref(Credentials, known.user_id)], change):
        log.warning("refresh_token_reused", extra={"user_id": known.user_id})
        raise unauthenticated("REFRESH_TOKEN_REUSED", "This session has ended for safety; log in again.")
    user = await store.get(User, known.user_id)
    if user is None:
        raise _invalid_refresh_token()
    return Tokens(user.id, await tokens.mint(user), text)


async def logout(refresh_token: str, *, store: Store) -> None:
    """End the session of any of its refresh tokens; unknown ones are ignored."""
    token: RefreshToken | None = parse_refresh_token(refresh_token)
    if token is None or await store.get(Session, token.session_id) is None:
        return

    def change(found: Sequence[Any]) -> Changes[None]:
        return Changes(None, delete=[session for session in found if session])

    await store.transact([Ref(Session, token.session_id)], change)


async def change_password(
    user_id: str,
    current: str,
    new: str,
    who: Identity,
    *,
    store: Store,
    hasher: Hasher,
    throttle: Throttle,
) -> None:
    """Replace the password and end every session; guesses of the current one count as failed logins.

    Raises UNAUTHENTICATED (INVALID_CREDENTIALS), RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS), INVALID_ARGUMENT
    (WEAK_PASSWORD).
    """
    require_self_or_admin(who, user_id)
    user = await store.get(User, user_id)
    if user is None:
        raise no_such_user()
    check_password(new, user.email, "new_password")
    known = await throttle.attempt(
        email_key(user.email), "", lambda: _prove(user_id, current, store=store, hasher=hasher)
    )
    fresh = await hasher.hash(new)

    def change(credentials: Credentials | None) -> tuple[Credentials, Sequence[Any]]:
        if credentials is None:
            raise no_such_user()
        credentials.replace(known.password_hash, fresh)
        return credentials, ()

    await store.update(Credentials, user_id, change)
    log.info("password_changed", extra={"user_id": user_id})


async def _prove(user_id: str, password: str, *, store: Store, hasher: Hasher) -> Credentials | None:
    credentials = await store.get(Credentials, user_id)
    right = await hasher.verify(password, credentials.password_hash if credentials else None)
    return credentials if right else None


async def _keep_hash_current(
    credentials: Credentials, password: str, *, store: Store, hasher: Hasher
) -> None:
    """Hash again by today's parameters if these are others; a login never fails for it."""
    known = credentials.password_hash
    if not hasher.is_outdated(known):
        return

    def change(credentials: Credentials | None) -> tuple[Credentials, Sequence[Any]]:
        if credentials is None:
            raise no_such_user()
        credentials.rehash(known, fresh)
        return credentials, ()

    with contextlib.suppress(ServiceError):
        fresh = await hasher.hash(password)
        await store.update(Credentials, credentials.id, change)


def _invalid_refresh_token() -> ServiceError:
    return unauthenticated("INVALID_REFRESH_TOKEN", "The session is over; log in again.")
