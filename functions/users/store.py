"""Storage of the entities of the users service: mappings, keys and indexes."""

from __future__ import annotations

from collections.abc import Iterable

from functions.runtime.store.port import EntityMapping, IndexKey, Page, Store
from functions.users.auth.challenges import Challenge
from functions.users.auth.devices import DeviceKey
from functions.users.auth.revocations import LegacyRevocations, Revocation, by_time
from functions.users.auth.signing_keys import SigningKeySet
from functions.users.auth.throttle import FailedAttempts, WindowCounter
from functions.users.domain import AddressBook, AdminRoster, Credentials, EmailClaim, Session, User

ROSTER_ID = AdminRoster().id
_BY_AGE, _ALL = "by_age", "all"


def _by_age(user: User) -> Iterable[IndexKey]:
    yield IndexKey(_BY_AGE, _ALL, user.created_at.isoformat(timespec="microseconds"))


MAPPINGS = (
    EntityMapping(User, "user", indexes=_by_age),
    EntityMapping(Credentials, "credentials"),
    EntityMapping(EmailClaim, "email", expires_at=lambda claim: claim.until),
    EntityMapping(AddressBook, "addresses"),
    EntityMapping(AdminRoster, "admins"),
    EntityMapping(Session, "session", expires_at=lambda session: session.expires_at),
    EntityMapping(FailedAttempts, "attempts", expires_at=lambda attempts: attempts.expires_at),
    EntityMapping(Challenge, "challenge", expires_at=lambda challenge: challenge.expires_at),
    EntityMapping(WindowCounter, "tally", expires_at=lambda counter: counter.expires_at),
    EntityMapping(DeviceKey, "device_key"),
    EntityMapping(SigningKeySet, "keys"),
    EntityMapping(Revocation, "revocation", indexes=by_time, expires_at=lambda revocation: revocation.expires_at),
    EntityMapping(LegacyRevocations, "outdated"),
)


async def newest_users(store: Store, limit: int, cursor: str | None) -> Page[User]:
    """Return a page of accounts, newest first."""
    return await store.page(User, _BY_AGE, _ALL, limit=limit, cursor=cursor, descending=True)
