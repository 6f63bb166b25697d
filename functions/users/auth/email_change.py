"""Use cases of a changed e-mail address: confirmation by the new address, and undo by the former address."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from events.catalog import Payload, UserChallenged, UserEmailChanged
from functions.runtime.clock import Clock
from functions.runtime.errors import exhausted
from functions.runtime.ids import new_id
from functions.runtime.store.port import Changes, Entity, Ref, Store
from functions.users.auth.account_access import AccountAccess
from functions.users.auth.challenges import Challenge, Purpose, challenge_id, invalid_mailed_token
from functions.users.auth.tokens import parse_mailed_token
from functions.users.domain import MAX_FORMER_EMAILS, UNDO_PERIOD, EmailClaim, FormerEmail, User, email_taken
from functions.users.emails import FOLDING, email_key
from observability.failpoints import failpoints

log = logging.getLogger("shop.users")


class EmailChangeService:
    """Use cases of a changed e-mail address. `UsersService.update` requests the change.

    Collaborators are fixed at start; methods are safe to call concurrently.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def pending_email(self, user: User) -> str:
        """Return the address that is not confirmed yet, or an empty text if no change is pending."""
        if user.pending_until is None or self._clock.now() >= user.pending_until:
            return ""
        challenge = await self._store.get(Challenge, challenge_id(Purpose.EMAIL_CHANGE, user.id))
        return challenge.address if challenge and self._clock.now() < challenge.expires_at else ""

    async def confirm(self, token: str) -> None:
        """Change the account's address to the one that the token was mailed to.

        The former address gets a mail, and nobody else can register it for seven days. If the account changes back to a
        former address, the changes after that address can no longer be undone. Earlier mailed tokens and access tokens
        become invalid.

        Raises:
            InvalidArgument: MAILED_TOKEN_INVALID.
            AlreadyExists: EMAIL_TAKEN, if another account got the address in the meantime.
            ResourceExhausted: TOO_MANY_EMAIL_CHANGES, for the sixth change in seven days.
            Aborted: VERSION_MISMATCH, if the account was changed concurrently.
        """
        presented = parse_mailed_token(token, await self._store.epoch())
        key = challenge_id(Purpose.EMAIL_CHANGE, presented.user_id)
        asked = await self._store.get(Challenge, key)
        seen = await self._store.get(User, presented.user_id)
        if asked is None or seen is None:
            raise invalid_mailed_token()
        change_id = new_id("emc")

        def change(found: Sequence[Any]) -> Changes[None]:
            user, old_claim, new_claim, _, *rest = found
            access = AccountAccess.from_found(rest[2 * len(seen.former_emails) :])
            challenge = next((each for each in access.challenges if each.id == key), None)
            now = self._clock.now()
            if user is None or challenge is None or challenge.email != asked.email:
                raise invalid_mailed_token()
            if not challenge.is_answered_by(presented.digest, asked.email, now):
                raise invalid_mailed_token()
            user.require_emails(seen)
            put, delete = access.revoke(user.id, now, keep_sessions=True)
            put += [user, EmailClaim(asked.email, user.id, folding=FOLDING)]
            events: list[Payload] = []
            position = _undo_position(user, now, email=asked.email)
            if position is not None:  # back to a former address
                delete += _undo_records(user, position, rest, now, keep=asked.email)
                delete += [old_claim] if old_claim else []
                user.former_emails = user.undoable(now)[:position]
            elif new_claim is not None and new_claim.is_taken(now):
                raise email_taken()
            elif user.email_deliverable and old_claim is not None:
                put += _keep_former(user, old_claim, change_id, now)
                events.append(UserEmailChanged(user_id=user.id, change_id=change_id))
            elif old_claim is not None:  # its mail reaches nobody or the wrong person
                delete.append(old_claim)
            user.change_email(challenge.address, now)
            return Changes(None, put=put, delete=delete, events=events)

        refs = [
            Ref(User, seen.id),
            Ref(EmailClaim, email_key(seen.email)),
            Ref(EmailClaim, asked.email),
            Ref(Challenge, challenge_id(Purpose.EMAIL_UNDO, change_id)),
            *former_refs(seen),
            *AccountAccess.refs(seen.id),
        ]
        with failpoints("users.move"):
            await self._store.transact(refs, change)
        log.info("email_changed", extra={"user_id": seen.id})

    async def undo(self, token: str) -> None:
        """Restore the former address of the account. The token was mailed to that address.

        The person who changed the address knew the password, or has set one since. So the account rejects every
        password until a new one is set, and every session and mailed token ends. A token for setting a new password is
        mailed to the restored address.

        Raises:
            InvalidArgument: MAILED_TOKEN_INVALID.
            Aborted: VERSION_MISMATCH, if the account was changed concurrently.
        """
        presented = parse_mailed_token(token, await self._store.epoch())
        key = challenge_id(Purpose.EMAIL_UNDO, presented.change_id)
        asked = await self._store.get(Challenge, key)
        seen = await self._store.get(User, asked.user_id) if asked else None
        if asked is None or seen is None:
            raise invalid_mailed_token()
        reset_id = challenge_id(Purpose.PASSWORD_RESET, seen.id)

        def change(found: Sequence[Any]) -> Changes[None]:
            user, current_claim, *rest = found
            access = AccountAccess.from_found(rest[2 * len(seen.former_emails) :])
            now = self._clock.now()
            if user is None:
                raise invalid_mailed_token()
            user.require_emails(seen)
            position = _undo_position(user, now, change_id=presented.change_id)
            challenge = next((each for each in rest if isinstance(each, Challenge) and each.id == key), None)
            answered = challenge is not None and challenge.is_answered_by(presented.digest, asked.email, now)
            if position is None or challenge is None or not answered:
                raise invalid_mailed_token()
            put, delete = access.revoke(user.id, now)
            if access.credentials is not None:
                access.credentials.lock()
            reset = Challenge(reset_id, user.id, asked.email, now)
            reset.request(Purpose.PASSWORD_RESET, asked.email, now)
            put += [user, reset, EmailClaim(asked.email, user.id, folding=FOLDING)]
            delete = [each for each in delete if each.id != reset_id]
            delete += _undo_records(user, position, rest, now, keep=asked.email)
            delete += [current_claim] if current_claim else []
            user.former_emails = user.undoable(now)[:position]
            user.change_email(challenge.address, now)
            event = UserChallenged(user_id=user.id, purpose="PASSWORD_RESET")
            return Changes(None, put=put, delete=delete, events=[event])

        refs = [
            Ref(User, seen.id),
            Ref(EmailClaim, email_key(seen.email)),
            *former_refs(seen),
            *AccountAccess.refs(seen.id),
        ]
        with failpoints("users.undo"):
            await self._store.transact(refs, change)
        log.warning("email_change_undone", extra={"user_id": seen.id})


def former_refs(user: User) -> list[Ref]:
    """Return the refs of the user's former addresses: the claim and the challenge of each."""
    refs = []
    for former in user.former_emails:
        undo_id = challenge_id(Purpose.EMAIL_UNDO, former.change_id)
        refs += [Ref(EmailClaim, former.email), Ref(Challenge, undo_id)]
    return refs


def _undo_position(user: User, now: datetime, *, email: str = "", change_id: str = "") -> int | None:
    """Return the index of this address or change in `user.undoable(now)`, or None if it is not there."""
    for position, former in enumerate(user.undoable(now)):
        if former.email == email or former.change_id == change_id:
            return position
    return None


def _keep_former(user: User, claim: EmailClaim, change_id: str, now: datetime) -> list[Entity]:
    """Reserve the former address for seven days, with the challenge that may undo the change.

    Returns the entities to store.
    """
    undoable, until = user.undoable(now), now + UNDO_PERIOD
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


def _undo_records(
    user: User, position: int, found: Sequence[Any], now: datetime, keep: str
) -> list[EmailClaim | Challenge]:
    """Return the claims and challenges of the former addresses from this position on, except the claim `keep`."""
    ended = user.undoable(now)[position:]
    ids = {former.email for former in ended if former.email != keep}
    ids |= {challenge_id(Purpose.EMAIL_UNDO, former.change_id) for former in ended}
    return [each for each in found if isinstance(each, EmailClaim | Challenge) and each.id in ids]
