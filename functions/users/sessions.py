"""Use cases of sessions: login, refresh, logout, change of password."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from events.catalog import UserPasswordChanged
from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, unauthenticated
from functions.runtime.identity import Identity
from functions.runtime.store.port import Changes, Ref, Store
from functions.users.account_access import AccountAccess
from functions.users.devices import Devices
from functions.users.domain import Credentials, Session, User, no_such_user
from functions.users.passwords import Hasher
from functions.users.proof import LoginAttempt, Proof
from functions.users.revocations import Revocation
from functions.users.rules import check_password
from functions.users.service import get_user
from functions.users.throttle import wrong_credentials
from functions.users.tokens import (
    AccessTokens,
    RefreshToken,
    Tokens,
    new_refresh_token,
    new_session_id,
    parse_refresh_token,
)
from observability.failpoints import failpoint

log = logging.getLogger("shop.users")


async def login(
    attempt: LoginAttempt,
    *,
    store: Store,
    proof: Proof,
    tokens: AccessTokens,
    devices: Devices,
    clock: Clock,
) -> Tokens:
    """Start a session. Raises what `Proof` raises."""
    credentials, device, misfolded = await proof.by_email(attempt)
    user = await store.get(User, credentials.id)
    if user is None:
        raise wrong_credentials()  # deleted just now
    if misfolded and user.email_deliverable and not user.email_verified:
        await _distrust_email(user, store=store, clock=clock)
    text, token = new_refresh_token(new_session_id(), await store.epoch())
    session = Session.start(token.session_id, credentials, token.digest, clock.now())
    failpoint("users.login.before")
    await store.update(Session, session.id, lambda _: (session, ()))
    failpoint("users.login.after")
    log.info("session_started", extra={"user_id": user.id})
    device_token = await devices.issue(credentials, device)
    return Tokens(user.id, await tokens.mint(user, session), text, device_token)


async def _distrust_email(seen: User, *, store: Store, clock: Clock) -> None:
    """Send no mail to an address that an earlier version made of another one: it is in somebody else's domain."""

    def change(user: User | None) -> tuple[User, Sequence[Any]]:
        if user is None:
            raise wrong_credentials()  # deleted just now
        if user.email == seen.email:
            user.bounced(clock.now(), clock.now())
        return user, ()

    await store.update(User, seen.id, change)
    log.warning("email_misfolded", extra={"user_id": seen.id})


async def refresh(refresh_token: str, *, store: Store, tokens: AccessTokens, clock: Clock) -> Tokens:
    """Trade a refresh token for new tokens.

    Strict: a token that was traded before ends the session, even at once and by its owner, whose lost answer
    cannot be told from a thief's copy; its access tokens are void within a minute. So nobody may retry this call.
    Raises UNAUTHENTICATED (INVALID_REFRESH_TOKEN, REFRESH_TOKEN_REUSED).
    """
    epoch = await store.epoch()
    presented = parse_refresh_token(refresh_token, epoch)
    known = await store.get(Session, presented.session_id) if presented else None
    if presented is None or known is None:
        raise _invalid_refresh_token()
    text, successor = new_refresh_token(known.id, epoch)

    def change(found: Sequence[Any]) -> Changes[bool]:
        session: Session | None = found[0]
        credentials: Credentials | None = found[1]
        if session is None or credentials is None or session.is_over(credentials, clock.now()):
            raise _invalid_refresh_token()
        if not session.rotate(presented.digest, successor.digest):
            return Changes(False)
        return Changes(True, put=[session])

    failpoint("users.refresh.before")
    traded = await store.transact([Ref(Session, known.id), Ref(Credentials, known.user_id)], change)
    failpoint("users.refresh.after")
    if not traded:
        await _end(
            known.id, store=store, clock=clock
        )  # apart, so that a refresh needs no more than it writes
        log.warning("refresh_token_reused", extra={"user_id": known.user_id})
        raise unauthenticated("REFRESH_TOKEN_REUSED", "This session has ended for safety; log in again.")
    user = await store.get(User, known.user_id)
    if user is None:
        raise _invalid_refresh_token()
    return Tokens(user.id, await tokens.mint(user, known), text)


async def logout(refresh_token: str, *, store: Store, clock: Clock) -> None:
    """End the session of any of its refresh tokens; access tokens are void within a minute. Ignores unknown ones."""
    token: RefreshToken | None = parse_refresh_token(refresh_token, await store.epoch())
    if token is not None and await store.get(Session, token.session_id) is not None:
        await _end(token.session_id, store=store, clock=clock)


async def _end(session_id: str, *, store: Store, clock: Clock) -> None:
    """Remove the session and revoke its access tokens."""
    revocation = Revocation.of_session(session_id, clock.now())

    def change(found: Sequence[Any]) -> Changes[None]:
        session: Session | None = found[0]
        return Changes(None, put=[revocation], delete=[session]) if session else Changes(None)

    failpoint("users.session.before")
    await store.transact([Ref(Session, session_id), Ref(Revocation, revocation.id)], change)
    failpoint("users.session.after")


async def change_password(
    user_id: str,
    current: str,
    new: str,
    caller: Identity,
    *,
    store: Store,
    hasher: Hasher,
    proof: Proof,
    clock: Clock,
) -> None:
    """Replace the password and end all access so far (see `account_access`).

    Raises what `Proof` raises for the current one, INVALID_ARGUMENT (WEAK_PASSWORD) for the new one.
    """
    user = await get_user(user_id, caller, store=store)
    check_password(new, user.email, "new_password")
    known = await proof.of_user(user_id, current)
    fresh = await hasher.hash(new)

    def change(found: Sequence[Any]) -> Changes[None]:
        access = AccountAccess.of(found)
        if access.credentials is None:
            raise no_such_user()
        access.credentials.replace(known.password_hash, fresh)
        put, delete = access.end(user_id, clock.now())
        return Changes(None, put=put, delete=delete, events=[UserPasswordChanged(user_id=user_id)])

    failpoint("users.password.before")
    await store.transact(AccountAccess.refs(user_id), change)
    failpoint("users.password.after")
    log.info("password_changed", extra={"user_id": user_id})


def _invalid_refresh_token() -> ServiceError:
    return unauthenticated("INVALID_REFRESH_TOKEN", "The session is over; log in again.")
