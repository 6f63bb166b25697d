"""How the entities of this domain are kept: kinds, keys, indexes."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from functions.runtime.errors import ServiceError
from functions.runtime.formats import MAX_EMAIL
from functions.runtime.store.port import EntityMapping, IndexKey, Page, Store
from functions.users.challenge import Challenge
from functions.users.devices import DeviceKey
from functions.users.domain import (
    AddressBook,
    AdminRoster,
    Credentials,
    EmailClaim,
    LoginAttempts,
    Session,
    Tally,
    User,
)
from functions.users.keyset import KeySet
from functions.users.revocations import OutdatedTokens, Revocation, by_time
from functions.users.rules import earlier_email, normal_email

ROSTER_ID = AdminRoster().id
_BY_AGE, _EVERYONE = "by_age", "all"


def _by_age(user: User) -> Iterable[IndexKey]:
    yield IndexKey(_BY_AGE, _EVERYONE, user.created_at.isoformat(timespec="microseconds"))


MAPPINGS = (
    EntityMapping(User, "user", indexes=_by_age),
    EntityMapping(Credentials, "credentials"),
    EntityMapping(EmailClaim, "email", expires_at=lambda claim: claim.until),
    EntityMapping(AddressBook, "addresses"),
    EntityMapping(AdminRoster, "admins"),
    EntityMapping(Session, "session", expires_at=lambda session: session.expires_at),
    EntityMapping(LoginAttempts, "attempts", expires_at=lambda attempts: attempts.expires_at),
    EntityMapping(Challenge, "challenge", expires_at=lambda challenge: challenge.expires_at),
    EntityMapping(Tally, "tally", expires_at=lambda tally: tally.expires_at),
    EntityMapping(DeviceKey, "device_key"),
    EntityMapping(KeySet, "keys"),
    EntityMapping(
        Revocation, "revocation", indexes=by_time, expires_at=lambda revocation: revocation.expires_at
    ),
    EntityMapping(OutdatedTokens, "outdated"),
)


def email_key(email: str) -> str:
    """The key of a normal e-mail address: a digest, since keys show up where addresses must not."""
    return sha256(email.encode()).hexdigest()


def account_key(text: str) -> str:
    """The key of the account that somebody names at login, whether or not it exists or could."""
    try:
        return email_key(normal_email(text))
    except ServiceError:
        # Cut, since nobody's name is longer; marked, so that it equals no real address.
        return email_key("\0" + text[:MAX_EMAIL].casefold())


def earlier_key(text: str) -> str | None:
    """The key that the address had under the rules of earlier versions; None where it is the same."""
    earlier = earlier_email(text)
    return email_key(earlier) if earlier else None


def address_key(client_address: str) -> str:
    """The key of a network address; of IPv6 its /64, which one subscriber has whole."""
    from ipaddress import IPv6Address, ip_address

    name = client_address.strip()[:64]
    try:
        address = ip_address(name)
    except ValueError:
        pass  # not an address, yet still the same caller each time
    else:
        name = str(address)
        if isinstance(address, IPv6Address):
            mapped = address.ipv4_mapped
            name = str(mapped) if mapped else address.packed[:8].hex()
    return sha256(f"address:{name}".encode()).hexdigest()


async def newest_users(store: Store, limit: int, cursor: str | None) -> Page[User]:
    """Accounts, newest first."""
    return await store.page(User, _BY_AGE, _EVERYONE, limit=limit, cursor=cursor, descending=True)
