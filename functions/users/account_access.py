"""Everything that proves or opens an account, and the one place where all of it ends.

A use case that changes what proves a person (password, e-mail address, roles, the account itself) adds
`AccountAccess.refs` to its transaction and writes what `end` gives, so that both commit together.

What belongs here: what exists once for each account is among the refs and is removed (mailed codes), what exists many
times (sessions, remembered devices) holds the `generation` of the credentials by which it was made and is void with
another. Access tokens, and the streams and tickets that were opened with them, end within a minute by the revocation.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from functions.runtime.key_set import subject_digest
from functions.runtime.store.port import Entity, Ref
from functions.users.challenge import OF_ACCOUNT, Challenge, challenge_id
from functions.users.domain import Credentials
from functions.users.revocations import Revocation


class Ended(NamedTuple):
    """What a transaction writes so that the access ends."""

    put: list[Entity]
    delete: list[Entity]


class AccountAccess(NamedTuple):
    """What was found of one account's access."""

    credentials: Credentials | None
    challenges: Sequence[Challenge]

    @staticmethod
    def refs(user_id: str) -> list[Ref]:
        """What `of` wants to be given, in this order."""
        return [
            Ref(Credentials, user_id),
            Ref(Revocation, subject_digest(user_id)),
            *(Ref(Challenge, challenge_id(purpose, user_id)) for purpose in OF_ACCOUNT),
        ]

    @staticmethod
    def of(found: Sequence[Any]) -> AccountAccess:
        """From what a transaction found at `refs`."""
        return AccountAccess(found[0], [challenge for challenge in found[2:] if challenge])

    def end(self, user_id: str, now: datetime, *, keep_sessions: bool = False) -> Ended:
        """Everything issued up to now ends: mailed codes, access tokens, and sessions and devices.

        With `keep_sessions` those last two stay: they can be traded for a token that shows the change.
        """
        put: list[Entity] = [Revocation.of_person(user_id, now)]
        if self.credentials is not None and not keep_sessions:
            self.credentials.generation += 1
        if self.credentials is not None:
            put.append(self.credentials)
        return Ended(put, list(self.challenges))

    def erase(self, user_id: str, now: datetime) -> Ended:
        """The account ends: what proves it is removed, too."""
        own: list[Entity] = [self.credentials] if self.credentials else []
        return Ended([Revocation.of_person(user_id, now)], [*own, *self.challenges])
