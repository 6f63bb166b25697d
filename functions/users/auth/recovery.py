"""Use cases of mailed tokens: reset a forgotten password, verify an e-mail address.

No event and no store ever contains a token. The notifications service requests a token when it sends the mail, and only
the digest is stored.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from events.catalog import Payload, UserChallenged, UserPasswordChanged
from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, exhausted, not_found
from functions.runtime.identity import Identity, require_self_or_admin, require_service
from functions.runtime.ids import is_id
from functions.runtime.store.port import Changes, Ref, Store
from functions.users.auth.account_access import AccountAccess
from functions.users.auth.challenges import PASSWORD_RESETS, Challenge, Purpose, challenge_id, invalid_mailed_token
from functions.users.auth.passwords import PasswordHasher, check_password
from functions.users.auth.throttle import Throttle, client_address_key
from functions.users.auth.tokens import MailedToken, new_mailed_token, parse_mailed_token
from functions.users.domain import EmailClaim, User, existing
from functions.users.emails import account_key, email_key
from observability.failpoints import failpoints

log = logging.getLogger("shop.users")


@dataclass(frozen=True, repr=False)
class RequestPasswordReset:
    """Request a mail with a token that resets the password. `client_address` is empty if it is unknown."""

    email: str
    client_address: str = ""


@dataclass(frozen=True, repr=False)
class ResetPassword:
    """Replace the password with a mailed token as proof."""

    token: str
    new_password: str


@dataclass(frozen=True)
class IssueMailedToken:
    """Issue a token for a challenge. `change_id` identifies the change of address for the purpose EMAIL_UNDO."""

    user_id: str
    purpose: Purpose
    change_id: str = ""


class MailedCode(NamedTuple):
    """A token, and the address to which it must be mailed."""

    token: str
    email: str


class RecoveryService:
    """Use cases of mailed tokens. Collaborators are fixed at start; methods are safe to call concurrently."""

    def __init__(self, store: Store, hasher: PasswordHasher, throttle: Throttle, clock: Clock) -> None:
        self._store = store
        self._hasher = hasher
        self._throttle = throttle
        self._clock = clock

    async def request_password_reset(self, command: RequestPasswordReset) -> None:
        """Request a mail with a token that resets the password, if the account exists.

        In 15 minutes, an account gets at most three mails for requests from one network, and ten in total. An unknown
        address goes through the same steps as a known address. Raises RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS), for a
        network address that sends too many requests.
        """
        await self._throttle.mail_request(command.client_address)
        account = account_key(command.email)
        claim = await self._store.get(EmailClaim, account)
        if claim and not claim.is_current:
            claim = None  # a former address proves nothing
        # An unknown address also gets a challenge, which expires, but no event.
        user_id = claim.user_id if claim else f"usr_{account[:32]}"
        event = UserChallenged(user_id=user_id, purpose="PASSWORD_RESET")
        origin = client_address_key(command.client_address)
        requested = await self._challenge(Purpose.PASSWORD_RESET, user_id, account, event if claim else None, origin)
        if claim and requested:
            log.info("password_reset_requested", extra={"user_id": claim.user_id})

    async def reset_password(self, command: ResetPassword) -> None:
        """Replace the password with a mailed token as proof, and end every session, access token and mailed token.

        The address becomes verified. Raises INVALID_ARGUMENT (MAILED_TOKEN_INVALID, WEAK_PASSWORD).
        """
        presented, user = await self._check_token(command.token, PASSWORD_RESETS)
        check_password(command.new_password, user.email, "new_password")
        new_hash = await self._hasher.hash(command.new_password)

        def change(found: Sequence[Any]) -> Changes[None]:
            user, access = found[0], AccountAccess.from_found(found[1:])
            self._require_answer(_of_purposes(access, PASSWORD_RESETS), user, presented)
            if access.credentials is None:
                raise invalid_mailed_token()
            access.credentials.replace(access.credentials.password_hash, new_hash)
            user.verify_email(self._clock.now())
            put, delete = access.revoke(user.id, self._clock.now())
            event = UserPasswordChanged(user_id=user.id)
            return Changes(None, put=[user, *put], delete=delete, events=[event])

        user_id = presented.user_id
        with failpoints("users.reset"):
            await self._store.transact([Ref(User, user_id), *AccountAccess.refs(user_id)], change)
        log.info("password_reset", extra={"user_id": user_id})

    async def request_verification(self, user_id: str, caller: Identity) -> None:
        """Request a mail with a token that verifies the account's address. Do nothing if it is already verified.

        Raises:
            NotFound: USER_NOT_FOUND.
            ResourceExhausted: TOO_MANY_ATTEMPTS, after three within 15 minutes.
        """
        require_self_or_admin(caller, user_id)
        user = existing(await self._store.get(User, user_id))
        if user.email_verified:
            return
        event = UserChallenged(user_id=user_id, purpose="EMAIL_VERIFICATION")
        if not await self._challenge(Purpose.EMAIL_VERIFICATION, user_id, email_key(user.email), event):
            raise exhausted("TOO_MANY_ATTEMPTS", "The mail was sent several times; look for it.", retry_after=900)

    async def verify_email(self, token: str) -> None:
        """Verify the account's address with a mailed token as proof. Raises INVALID_ARGUMENT (MAILED_TOKEN_INVALID)."""
        presented, _ = await self._check_token(token, (Purpose.EMAIL_VERIFICATION,))

        def change(found: Sequence[Any]) -> Changes[None]:
            challenge, user = found
            self._require_answer([challenge], user, presented)
            user.verify_email(self._clock.now())
            return Changes(None, put=[user], delete=[challenge])

        key = challenge_id(Purpose.EMAIL_VERIFICATION, presented.user_id)
        with failpoints("users.verify"):
            await self._store.transact([Ref(Challenge, key), Ref(User, presented.user_id)], change)
        log.info("email_verified", extra={"user_id": presented.user_id})

    async def issue_mailed_token(self, command: IssueMailedToken, caller: Identity) -> MailedCode:
        """Issue a token for a challenge. Earlier tokens stay valid. Only the notifications service may call this.

        Returns the token, and the address to which it must be mailed at once. Raises NOT_FOUND (CHALLENGE_NOT_FOUND),
        if there is no valid challenge for the purpose.
        """
        require_service(caller, "notifications")
        user_id, purpose = command.user_id, command.purpose
        owner_id = command.change_id if purpose is Purpose.EMAIL_UNDO else user_id
        user = await self._store.get(User, user_id)
        if user is None or not is_id(owner_id[:3], owner_id):
            raise _challenge_not_found()
        text, token = new_mailed_token(owner_id, await self._store.epoch())

        def change(challenge: Challenge | None) -> tuple[Challenge, Sequence[Payload]]:
            if challenge is None or challenge.user_id != user_id:
                raise _challenge_not_found()
            address = challenge.address or user.email
            if email_key(address) != challenge.email or not challenge.issue(token.digest, self._clock.now()):
                raise _challenge_not_found()
            return challenge, ()

        with failpoints("users.issue"):
            challenge = await self._store.update(Challenge, challenge_id(purpose, owner_id), change)
        return MailedCode(text, challenge.address or user.email)

    async def _challenge(
        self, purpose: Purpose, user_id: str, email: str, event: UserChallenged | None, origin: str = ""
    ) -> bool:
        """Record a request for a mail, and return whether it may be sent. If so, `event` commits with the challenge."""
        now = self._clock.now()
        key = challenge_id(purpose, user_id)

        def change(found: Sequence[Any]) -> Changes[bool]:
            challenge = found[0] or Challenge(key, user_id, email, now)
            if not challenge.request(purpose, email, now, origin=origin):
                return Changes(False)
            return Changes(True, put=[challenge], events=[event] if event else [])

        with failpoints("users.challenge"):
            return await self._store.transact([Ref(Challenge, key)], change)

    async def _check_token(self, token: str, purposes: Sequence[Purpose]) -> tuple[MailedToken, User]:
        """Check the token before expensive work, and return it with its account. The transaction repeats the check."""
        presented = parse_mailed_token(token, await self._store.epoch())
        ids = [challenge_id(purpose, presented.user_id) for purpose in purposes]
        challenges = await self._store.get_many(Challenge, ids)
        user = await self._store.get(User, presented.user_id)
        return presented, self._require_answer(list(challenges.values()), user, presented)

    def _require_answer(
        self, challenges: Sequence[Challenge | None], user: User | None, presented: MailedToken
    ) -> User:
        if user is None:
            raise invalid_mailed_token()
        email, now = email_key(user.email), self._clock.now()
        if not any(each and each.is_answered_by(presented.digest, email, now) for each in challenges):
            raise invalid_mailed_token()
        return user


def _of_purposes(access: AccountAccess, purposes: Sequence[Purpose]) -> list[Challenge]:
    """Return the account's challenges that have one of these purposes."""
    ids = {challenge_id(purpose, access.credentials.id) for purpose in purposes if access.credentials}
    return [challenge for challenge in access.challenges if challenge.id in ids]


def _challenge_not_found() -> ServiceError:
    return not_found("Challenge", "CHALLENGE_NOT_FOUND")
