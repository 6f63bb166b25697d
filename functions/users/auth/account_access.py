"""All access to an account, and the one place where it ends.

A use case that changes a password, an e-mail address, roles, or deletes the account adds `AccountAccess.refs` to its
transaction and writes what `revoke` or `delete` returns, so that both commit together.

What exists once for each account is among the refs and is deleted (mailed tokens). What exists many times (sessions,
known devices) holds the `generation` of the credentials with which it was made, and is invalid with another. Access
tokens, and the streams and tickets that were opened with them, end within a minute by the revocation.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from functions.runtime.key_set import subject_digest
from functions.runtime.store.port import Entity, Ref
from functions.users.auth.challenges import ACCOUNT_PURPOSES, Challenge, challenge_id
from functions.users.auth.revocations import Revocation
from functions.users.domain import Credentials


class AccessChanges(NamedTuple):
    """What a transaction must write to end the access."""

    put: list[Entity]
    delete: list[Entity]


class AccountAccess(NamedTuple):
    """The stored access to one account."""

    credentials: Credentials | None
    challenges: Sequence[Challenge]

    @staticmethod
    def refs(user_id: str) -> list[Ref]:
        """Return the refs that `from_found` expects, in this order."""
        return [
            Ref(Credentials, user_id),
            Ref(Revocation, subject_digest(user_id)),
            *(Ref(Challenge, challenge_id(purpose, user_id)) for purpose in ACCOUNT_PURPOSES),
        ]

    @staticmethod
    def from_found(found: Sequence[Any]) -> AccountAccess:
        """Make it from the entities that a transaction found at `refs`."""
        return AccountAccess(found[0], [challenge for challenge in found[2:] if challenge])

    def revoke(self, user_id: str, now: datetime, *, keep_sessions: bool = False) -> AccessChanges:
        """End everything issued up to now: mailed tokens, access tokens, sessions and known devices.

        With `keep_sessions` sessions and devices stay: a refresh gives a token that shows the change.
        """
        put: list[Entity] = [Revocation.of_user(user_id, now)]
        if self.credentials is not None:
            if not keep_sessions:
                self.credentials.generation += 1
            put.append(self.credentials)
        return AccessChanges(put, list(self.challenges))

    def delete(self, user_id: str, now: datetime) -> AccessChanges:
        """End everything, and delete the credentials, because the account is being deleted."""
        credentials: list[Entity] = [self.credentials] if self.credentials else []
        return AccessChanges([Revocation.of_user(user_id, now)], [*credentials, *self.challenges])
