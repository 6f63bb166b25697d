"""Use cases around mailed tokens: resetting a forgotten password, verifying an e-mail address.

No event and no store ever holds a token: notifications asks for one when it sends the mail (`issue`), and all that is
kept is its digest.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from events.catalog import Payload, UserChallenged
from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, exhausted, invalid, not_found
from functions.runtime.identity import Identity, require_service
from functions.runtime.store.port import Changes, Ref, Store
from functions.users.account_access import AccountAccess
from functions.users.challenge import Challenge, Purpose, challenge_id
from functions.users.domain import EmailClaim, LoginAttempts, User
from functions.users.passwords import Hasher
from functions.users.rules import check_password
from functions.users.service import get_user
from functions.users.store import account_key, email_key
from functions.users.throttle import Throttle
from functions.users.tokens import MailedToken, new_mailed_token, parse_mailed_token
from observability.failpoints import failpoint

log = logging.getLogger("shop.users")


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
    # Nobody's challenge is kept like anybody's, tells nobody, and expires.
    user_id = claim.user_id if claim else f"usr_{account[:32]}"
    asked = await _ask(
        Purpose.PASSWORD_RESET, user_id, account, tells=claim is not None, store=store, clock=clock
    )
    if claim and asked:
        log.info("password_reset_requested", extra={"user_id": claim.user_id})


async def reset_password(token: str, new: str, *, store: Store, hasher: Hasher, clock: Clock) -> None:
    """Replace the password by the proof of a mailed token, then used up; end all access so far (see `account_access`).

    The address counts as verified. Raises INVALID_ARGUMENT (MAILED_TOKEN_INVALID, WEAK_PASSWORD).
    """
    presented, user = await _presented(token, Purpose.PASSWORD_RESET, store=store, clock=clock)
    check_password(new, user.email, "new_password")
    fresh = await hasher.hash(new)

    def change(found: Sequence[Any]) -> Changes[None]:
        challenge, user, attempts, *rest = found
        access = AccountAccess.of(rest)
        _require_answer(challenge, user, presented, clock)
        if access.credentials is None:
            raise _void()
        access.credentials.replace(access.credentials.password_hash, fresh)
        user.verify_email(clock.now())
        put, delete = access.end(user.id, clock.now())
        return Changes(None, put=[user, *put], delete=[*delete, *([attempts] if attempts else [])])

    user_id = presented.user_id
    refs = [
        Ref(Challenge, challenge_id(Purpose.PASSWORD_RESET, user_id)),
        Ref(User, user_id),
        Ref(LoginAttempts, email_key(user.email)),
        *AccountAccess.refs(user_id),
    ]
    failpoint("users.reset.before")
    await store.transact(refs, change)
    failpoint("users.reset.after")
    log.info("password_reset", extra={"user_id": presented.user_id})


async def request_verification(user_id: str, who: Identity, *, store: Store, clock: Clock) -> None:
    """Have a token mailed that verifies the account's address; nothing for one that is verified.

    Raises RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS) after three within 15 minutes.
    """
    user = await get_user(user_id, who, store=store)
    if user.email_verified:
        return
    purpose, address = Purpose.EMAIL_VERIFICATION, email_key(user.email)
    if not await _ask(purpose, user_id, address, tells=True, store=store, clock=clock):
        raise exhausted("TOO_MANY_ATTEMPTS", "The mail was sent several times; look for it.", retry_after=900)


async def verify_email(token: str, *, store: Store, clock: Clock) -> None:
    """The account's address is verified by the proof of a mailed token.

    Raises INVALID_ARGUMENT (MAILED_TOKEN_INVALID).
    """
    presented, _ = await _presented(token, Purpose.EMAIL_VERIFICATION, store=store, clock=clock)

    def change(found: Sequence[Any]) -> Changes[None]:
        challenge, user = found
        _require_answer(challenge, user, presented, clock)
        user.verify_email(clock.now())
        return Changes(None, put=[user], delete=[challenge])

    key = challenge_id(Purpose.EMAIL_VERIFICATION, presented.user_id)
    failpoint("users.verify.before")
    await store.transact([Ref(Challenge, key), Ref(User, presented.user_id)], change)
    failpoint("users.verify.after")
    log.info("email_verified", extra={"user_id": presented.user_id})


async def issue(user_id: str, purpose: Purpose, who: Identity, *, store: Store, clock: Clock) -> str:
    """A new token for a challenge, to be mailed at once; those before it are void. For notifications only.

    Raises NOT_FOUND (CHALLENGE_NOT_FOUND) when there is nothing to prove any more.
    """
    require_service(who, "notifications")
    text, token = new_mailed_token(user_id, await store.epoch())

    def change(challenge: Challenge | None) -> tuple[Challenge, Sequence[Payload]]:
        if challenge is None or not challenge.issue(token.digest, clock.now()):
            raise not_found("Challenge", "CHALLENGE_NOT_FOUND")
        return challenge, ()

    failpoint("users.issue.before")
    await store.update(Challenge, challenge_id(purpose, user_id), change)
    failpoint("users.issue.after")
    return text


async def _ask(
    purpose: Purpose, user_id: str, email: str, *, tells: bool, store: Store, clock: Clock
) -> bool:
    """Whether a mail may go out; with `tells` its event is committed."""
    now = clock.now()
    key = challenge_id(purpose, user_id)

    def change(found: Sequence[Any]) -> Changes[bool]:
        challenge = found[0] or Challenge(key, user_id, email, now)
        if not challenge.ask(purpose, email, now):
            return Changes(False)
        events = [UserChallenged(user_id=user_id, purpose=purpose.value)] if tells else []
        return Changes(True, put=[challenge], events=events)

    failpoint("users.challenge.before")
    asked = await store.transact([Ref(Challenge, key)], change)
    failpoint("users.challenge.after")
    return asked


async def _presented(token: str, purpose: Purpose, *, store: Store, clock: Clock) -> tuple[MailedToken, User]:
    """The token and its account, seen before anything dear is done for it; the transaction looks again."""
    presented = parse_mailed_token(token, await store.epoch())
    if presented is None:
        raise _void()
    challenge = await store.get(Challenge, challenge_id(purpose, presented.user_id))
    user = await store.get(User, presented.user_id)
    return presented, _require_answer(challenge, user, presented, clock)


def _require_answer(
    challenge: Challenge | None, user: User | None, presented: MailedToken, clock: Clock
) -> User:
    if challenge is None or user is None:
        raise _void()
    if not challenge.is_answered_by(presented.digest, email_key(user.email), clock.now()):
        raise _void()
    return user


def _void() -> ServiceError:
    """One answer for whatever is wrong with it."""
    return invalid(
        "The token is not valid, or not any more.",
        ("token", "must be the one that was mailed last, used once, in time"),
        reason="MAILED_TOKEN_INVALID",
    )
