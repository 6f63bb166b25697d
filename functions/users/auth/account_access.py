"""All access to an account, and the only code that revokes it.

A use case that changes a password, an e-mail address or roles, or deletes the account, adds `AccountAccess.refs` to its
transaction and writes the result of `revoke` or `delete`, so that both commit together.

Mailed tokens belong to challenges that exist once for each account: these are among the refs and are deleted. Sessions
and known devices exist many times: they hold the `generation` of the credentials with which they were made, and are
invalid with any other. The revocation ends access tokens within a minute, together with their streams and tickets.
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
    """The changes that a transaction must write to end the access."""

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
        """Return the access from the entities that a transaction found at `refs`."""
        return AccountAccess(found[0], [challenge for challenge in found[2:] if challenge])

    def revoke(self, user_id: str, now: datetime, *, keep_sessions: bool = False) -> AccessChanges:
        """End everything issued up to now: mailed tokens, access tokens, sessions and known devices.

        With `keep_sessions`, sessions and devices stay valid: a refresh issues a token that reflects the change.
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
