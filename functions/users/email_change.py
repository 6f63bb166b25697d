"""Use cases of another e-mail address: the new one answers with a code, the former one may take the account back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from events.catalog import Payload, UserChallenged, UserEmailChanged
from functions.runtime.clock import Clock
from functions.runtime.errors import already_exists, exhausted
from functions.runtime.ids import new_id
from functions.runtime.store.port import Changes, Entity, Ref, Store
from functions.users.account_access import AccountAccess
from functions.users.challenge import Challenge, Purpose, challenge_id, invalid_mailed_token
from functions.users.domain import MAX_FORMER_EMAILS, UNDO_LIFE, EmailClaim, FormerEmail, User
from functions.users.rules import FOLDING
from functions.users.store import email_key
from functions.users.tokens import parse_mailed_token
from observability.failpoints import failpoint

log = logging.getLogger("shop.users")


async def pending_email(user: User, *, store: Store, clock: Clock) -> str:
    """Return the address that waits for its code; empty for none."""
    if user.pending_until is None or clock.now() >= user.pending_until:
        return ""
    challenge = await store.get(Challenge, challenge_id(Purpose.EMAIL_CHANGE, user.id))
    return challenge.address if challenge and clock.now() < challenge.expires_at else ""


async def confirm(token: str, *, store: Store, clock: Clock) -> None:
    """Move the account to the address whose mailed token this is.

    The former address is told, and nobody else gets it for seven days. Back at a former address, those between lose
    their right to undo. Mailed tokens and access tokens from before are void.

    Raises:
        InvalidArgument: MAILED_TOKEN_INVALID.
        AlreadyExists: EMAIL_TAKEN, by somebody in the meantime.
        ResourceExhausted: TOO_MANY_EMAIL_CHANGES, for the sixth in seven days.
        Aborted: VERSION_MISMATCH, when the account was changed at the same moment.
    """
    presented = parse_mailed_token(token, await store.epoch())
    if presented is None:
        raise invalid_mailed_token()
    key = challenge_id(Purpose.EMAIL_CHANGE, presented.user_id)
    asked, seen = await store.get(Challenge, key), await store.get(User, presented.user_id)
    if asked is None or seen is None:
        raise invalid_mailed_token()
    change_id = new_id("emc")

    def change(found: Sequence[Any]) -> Changes[None]:
        user, old, new, _, *rest = found
        access = AccountAccess.of(rest[2 * len(seen.former_emails) :])
        challenge = next((each for each in access.challenges if each.id == key), None)
        now = clock.now()
        if user is None or challenge is None or challenge.email != asked.email:
            raise invalid_mailed_token()
        if not challenge.is_answered_by(presented.digest, asked.email, now):
            raise invalid_mailed_token()
        user.require_emails(seen)
        put, delete = access.end(user.id, now, keep_sessions=True)
        put += [user, EmailClaim(asked.email, user.id, folding=FOLDING)]
        events: list[Payload] = []
        position = _position(user, now, email=asked.email)
        if position is not None:  # back to where it was
            delete += [*_dropped(user, position, rest, now, keep=asked.email), *([old] if old else [])]
            user.former_emails = user.undoable(now)[:position]
        elif new is not None and new.is_taken(now):
            raise already_exists("EMAIL_TAKEN", "There is an account with this e-mail address already.")
        elif user.email_deliverable and old is not None:
            put += _hold(user, old, change_id, now)
            events.append(UserEmailChanged(user_id=user.id, change_id=change_id))
        elif old is not None:  # its mail reaches nobody, or somebody else
            delete.append(old)
        user.move_to(challenge.address, now)
        return Changes(None, put=put, delete=delete, events=events)

    refs = [
        Ref(User, seen.id),
        Ref(EmailClaim, email_key(seen.email)),
        Ref(EmailClaim, asked.email),
        Ref(Challenge, challenge_id(Purpose.EMAIL_UNDO, change_id)),
        *former_refs(seen),
        *AccountAccess.refs(seen.id),
    ]
    failpoint("users.move.before")
    await store.transact(refs, change)
    failpoint("users.move.after")
    log.info("email_changed", extra={"user_id": seen.id})


async def undo(token: str, *, store: Store, clock: Clock) -> None:
    """Give the account back to the former address whose mailed token this is.

    Whoever moved the account knew its password, or has set one since: no password is right any more, every session and
    mailed token ends, and a token for a new password is mailed to the address that is back.

    Raises INVALID_ARGUMENT (MAILED_TOKEN_INVALID), ABORTED (VERSION_MISMATCH).
    """
    presented = parse_mailed_token(token, await store.epoch())
    if presented is None:
        raise invalid_mailed_token()
    key = challenge_id(Purpose.EMAIL_UNDO, presented.change_id)
    asked = await store.get(Challenge, key)
    seen = await store.get(User, asked.user_id) if asked else None
    if asked is None or seen is None:
        raise invalid_mailed_token()
    reset_id = challenge_id(Purpose.PASSWORD_RESET, seen.id)

    def change(found: Sequence[Any]) -> Changes[None]:
        user, current, *rest = found
        access = AccountAccess.of(rest[2 * len(seen.former_emails) :])
        now = clock.now()
        if user is None:
            raise invalid_mailed_token()
        user.require_emails(seen)
        position = _position(user, now, change_id=presented.change_id)
        challenge = next((each for each in rest if isinstance(each, Challenge) and each.id == key), None)
        answered = challenge is not None and challenge.is_answered_by(presented.digest, asked.email, now)
        if position is None or challenge is None or not answered:
            raise invalid_mailed_token()
        put, delete = access.end(user.id, now)
        if access.credentials is not None:
            access.credentials.lock()
        reset = Challenge(reset_id, user.id, asked.email, now)
        reset.ask(Purpose.PASSWORD_RESET, asked.email, now)
        put += [user, reset, EmailClaim(asked.email, user.id, folding=FOLDING)]
        delete = [each for each in delete if each.id != reset_id]
        delete += [*_dropped(user, position, rest, now, keep=asked.email), *([current] if current else [])]
        user.former_emails = user.undoable(now)[:position]
        user.move_to(challenge.address, now)
        told = UserChallenged(user_id=user.id, purpose="PASSWORD_RESET")
        return Changes(None, put=put, delete=delete, events=[told])

    refs = [
        Ref(User, seen.id),
        Ref(EmailClaim, email_key(seen.email)),
        *former_refs(seen),
        *AccountAccess.refs(seen.id),
    ]
    failpoint("users.undo.before")
    await store.transact(refs, change)
    failpoint("users.undo.after")
    log.warning("email_change_undone", extra={"user_id": seen.id})


def former_refs(user: User) -> list[Ref]:
    """Name what is kept of the user's former addresses: the claim and the challenge of each."""
    refs = []
    for former in user.former_emails:
        undo_id = challenge_id(Purpose.EMAIL_UNDO, former.change_id)
        refs += [Ref(EmailClaim, former.email), Ref(Challenge, undo_id)]
    return refs


def _position(user: User, now: datetime, *, email: str = "", change_id: str = "") -> int | None:
    """Return where this address or change stands among those that can be undone; None for nowhere."""
    for position, former in enumerate(user.undoable(now)):
        if former.email == email or former.change_id == change_id:
            return position
    return None


def _hold(user: User, claim: EmailClaim, change_id: str, now: datetime) -> list[Entity]:
    """Keep the address that is left, and what it can answer with, for seven days."""
    undoable, until = user.undoable(now), now + UNDO_LIFE
    if len(undoable) >= MAX_FORMER_EMAILS:
        raise exhausted(
            "TOO_MANY_EMAIL_CHANGES",
            "The address was changed several times; try again later.",
            retry_after=(undoable[0].until - now).total_seconds(),
        )
    user.former_emails = [*undoable, FormerEmail(change_id, claim.id, until)]
    undo_id = challenge_id(Purpose.EMAIL_UNDO, change_id)
    challenge = Challenge(undo_id, user.id, claim.id, until, asked=[now], address=user.email)
    return [EmailClaim(claim.id, user.id, until=until, folding=claim.folding), challenge]


def _dropped(user: User, position: int, kept: Sequence[Any], now: datetime, keep: str) -> list[Entity]:
    """Return what goes of the former addresses from this position on; but not the claim of the address `keep`."""
    gone = user.undoable(now)[position:]
    ids = {former.email for former in gone if former.email != keep}
    ids |= {challenge_id(Purpose.EMAIL_UNDO, former.change_id) for former in gone}
    return [each for each in kept if each is not None and each.id in ids and isinstance(each, _KEPT)]


_KEPT = EmailClaim | Challenge
