"""Use cases around mailed tokens: resetting a forgotten password, verifying an e-mail address.

No event and no store ever holds a token: notifications asks for one when it sends the mail (`issue`), and all that is
kept is its digest.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from events.catalog import Payload, UserChallenged, UserPasswordChanged
from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, exhausted, not_found
from functions.runtime.identity import Identity, require_service
from functions.runtime.ids import is_id
from functions.runtime.store.port import Changes, Ref, Store
from functions.users.account_access import AccountAccess
from functions.users.challenge import (
    PASSWORD_RESETS,
    Challenge,
    Purpose,
    challenge_id,
    invalid_mailed_token,
)
from functions.users.domain import EmailClaim, User
from functions.users.passwords import Hasher
from functions.users.rules import check_password
from functions.users.service import get_user
from functions.users.store import account_key, email_key
from functions.users.throttle import Throttle
from functions.users.tokens import MailedToken, new_mailed_token, parse_mailed_token
from observability.failpoints import failpoint

log = logging.getLogger("shop.users")


class MailedCode(NamedTuple):
    """A token to be mailed, and the address that it is for."""

    token: str
    email: str


async def request_reset(
    email: str, client_address: str, *, store: Store, throttle: Throttle, clock: Clock
) -> None:
    """Have a token mailed that resets the password, if there is such an account; at most three in 15 minutes.

    An unknown address takes every step that a known one takes. Raises RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS) for a
    network address that asks too often.
    """
    await throttle.spend(client_address)
    account = account_key(email)
    claim = await store.get(EmailClaim, account)
    if claim and not claim.is_current:
        claim = None  # a former address proves nothing
    # Nobody's challenge is kept like anybody's, tells nobody, and expires.
    user_id = claim.user_id if claim else f"usr_{account[:32]}"
    told = UserChallenged(user_id=user_id, purpose="PASSWORD_RESET")
    asked = await _ask(
        Purpose.PASSWORD_RESET, user_id, account, told=told if claim else None, store=store, clock=clock
    )
    if claim and asked:
        log.info("password_reset_requested", extra={"user_id": claim.user_id})


async def reset_password(token: str, new: str, *, store: Store, hasher: Hasher, clock: Clock) -> None:
    """Replace the password by the proof of a mailed token; end every session, access token and mailed token.

    The address counts as verified. Raises INVALID_ARGUMENT (MAILED_TOKEN_INVALID, WEAK_PASSWORD).
    """
    presented, user = await _presented(token, PASSWORD_RESETS, store=store, clock=clock)
    check_password(new, user.email, "new_password")
    fresh = await hasher.hash(new)

    def change(found: Sequence[Any]) -> Changes[None]:
        user, access = found[0], AccountAccess.of(found[1:])
        _require_answer(_for(access, PASSWORD_RESETS), user, presented, clock)
        if access.credentials is None:
            raise invalid_mailed_token()
        access.credentials.replace(access.credentials.password_hash, fresh)
        user.verify_email(clock.now())
        put, delete = access.end(user.id, clock.now())
        return Changes(None, put=[user, *put], delete=delete, events=[UserPasswordChanged(user_id=user.id)])

    user_id = presented.user_id
    failpoint("users.reset.before")
    await store.transact([Ref(User, user_id), *AccountAccess.refs(user_id)], change)
    failpoint("users.reset.after")
    log.info("password_reset", extra={"user_id": user_id})


async def request_verification(user_id: str, caller: Identity, *, store: Store, clock: Clock) -> None:
    """Have a token mailed that verifies the account's address; nothing for one that is verified.

    Raises RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS) after three within 15 minutes.
    """
    user = await get_user(user_id, caller, store=store)
    if user.email_verified:
        return
    purpose, address = Purpose.EMAIL_VERIFICATION, email_key(user.email)
    told = UserChallenged(user_id=user_id, purpose="EMAIL_VERIFICATION")
    if not await _ask(purpose, user_id, address, told=told, store=store, clock=clock):
        raise exhausted("TOO_MANY_ATTEMPTS", "The mail was sent several times; look for it.", retry_after=900)


async def verify_email(token: str, *, store: Store, clock: Clock) -> None:
    """The account's address is verified by the proof of a mailed token.

    Raises INVALID_ARGUMENT (MAILED_TOKEN_INVALID).
    """
    presented, _ = await _presented(token, (Purpose.EMAIL_VERIFICATION,), store=store, clock=clock)

    def change(found: Sequence[Any]) -> Changes[None]:
        challenge, user = found
        _require_answer([challenge], user, presented, clock)
        user.verify_email(clock.now())
        return Changes(None, put=[user], delete=[challenge])

    key = challenge_id(Purpose.EMAIL_VERIFICATION, presented.user_id)
    failpoint("users.verify.before")
    await store.transact([Ref(Challenge, key), Ref(User, presented.user_id)], change)
    failpoint("users.verify.after")
    log.info("email_verified", extra={"user_id": presented.user_id})


async def issue(
    user_id: str, purpose: Purpose, change_id: str, caller: Identity, *, store: Store, clock: Clock
) -> MailedCode:
    """Return a new token for a challenge, and the address it must be mailed to at once; earlier tokens stay good.

    For notifications only; `change_id` names the change that EMAIL_UNDO is about.
    Raises NOT_FOUND (CHALLENGE_NOT_FOUND) when there is nothing to prove any more.
    """
    require_service(caller, "notifications")
    owner_id = change_id if purpose is Purpose.EMAIL_UNDO else user_id
    user = await store.get(User, user_id)
    if user is None or not is_id(owner_id[:3], owner_id):
        raise _nothing_to_prove()
    text, token = new_mailed_token(owner_id, await store.epoch())

    def change(challenge: Challenge | None) -> tuple[Challenge, Sequence[Payload]]:
        if challenge is None or challenge.user_id != user_id:
            raise _nothing_to_prove()
        address = challenge.address or user.email
        if email_key(address) != challenge.email or not challenge.issue(token.digest, clock.now()):
            raise _nothing_to_prove()
        return challenge, ()

    failpoint("users.issue.before")
    challenge = await store.update(Challenge, challenge_id(purpose, owner_id), change)
    failpoint("users.issue.after")
    return MailedCode(text, challenge.address or user.email)


def _nothing_to_prove() -> ServiceError:
    return not_found("Challenge", "CHALLENGE_NOT_FOUND")


async def _ask(
    purpose: Purpose,
    user_id: str,
    email: str,
    *,
    told: UserChallenged | None,
    store: Store,
    clock: Clock,
) -> bool:
    """Return whether a mail may go out; then the event `told` is committed, too."""
    now = clock.now()
    key = challenge_id(purpose, user_id)

    def change(found: Sequence[Any]) -> Changes[bool]:
        challenge = found[0] or Challenge(key, user_id, email, now)
        if not challenge.ask(purpose, email, now):
            return Changes(False)
        return Changes(True, put=[challenge], events=[told] if told else [])

    failpoint("users.challenge.before")
    asked = await store.transact([Ref(Challenge, key)], change)
    failpoint("users.challenge.after")
    return asked


def _for(access: AccountAccess, purposes: Sequence[Purpose]) -> list[Challenge]:
    """Return the challenges of these purposes."""
    ids = {challenge_id(purpose, access.credentials.id) for purpose in purposes if access.credentials}
    return [challenge for challenge in access.challenges if challenge.id in ids]


async def _presented(
    token: str, purposes: Sequence[Purpose], *, store: Store, clock: Clock
) -> tuple[MailedToken, User]:
    """Check the token before any expensive work; return it with its account. The transaction checks again."""
    presented = parse_mailed_token(token, await store.epoch())
    if presented is None:
        raise invalid_mailed_token()
    ids = [challenge_id(purpose, presented.user_id) for purpose in purposes]
    challenges = await store.get_many(Challenge, ids)
    user = await store.get(User, presented.user_id)
    return presented, _require_answer(list(challenges.values()), user, presented, clock)


def _require_answer(
    challenges: Sequence[Challenge | None], user: User | None, presented: MailedToken, clock: Clock
) -> User:
    if user is None:
        raise invalid_mailed_token()
    email, now = email_key(user.email), clock.now()
    if not any(each and each.is_answered_by(presented.digest, email, now) for each in challenges):
        raise invalid_mailed_token()
    return user
