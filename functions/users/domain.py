"""Entities of accounts: users, credentials, e-mail claims, the roster of administrators, addresses and sessions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hmac import compare_digest

from events.catalog import Payload, UserDeleted, UserRegistered
from functions.runtime.addresses import PostalAddress
from functions.runtime.errors import (
    Code,
    ServiceError,
    aborted,
    already_exists,
    failed_precondition,
    invalid,
    not_found,
)
from functions.runtime.formats import MAX_NAME
from functions.runtime.text import TextError, clean_line

CUSTOMER, ADMIN = "customer", "admin"
ROLES = frozenset({CUSTOMER, ADMIN})
MAX_ADDRESSES = 20
SESSION_LIFE = timedelta(days=30)
UNDO_PERIOD = timedelta(days=7)
MAX_FORMER_EMAILS = 5


@dataclass
class FormerEmail:
    """A former e-mail address of an account, which may undo the change until `until`. `email` is its digest."""

    change_id: str
    email: str
    until: datetime


@dataclass
class User:
    """A person's profile. The repr omits the data that identifies the person, so that logs do not contain it."""

    id: str
    email: str = field(repr=False)
    name: str = field(repr=False)
    roles: list[str]
    created_at: datetime
    updated_at: datetime
    # The time since which the account has `email`. An earlier bounce concerns another address.
    email_since: datetime
    email_deliverable: bool = True
    email_verified: bool = False
    # The expiry of a pending change of the address, or None. The challenge contains the new address.
    pending_until: datetime | None = None
    # Oldest first.
    former_emails: list[FormerEmail] = field(default_factory=list)
    version: int = 0

    @staticmethod
    def register(
        user_id: str, email: str, name: str, roles: Iterable[str], now: datetime
    ) -> tuple[User, list[Payload]]:
        """Return a new account and the event that announces it."""
        user = User(user_id, email, name, sorted(roles), now, now, email_since=now)
        return user, [UserRegistered(user_id=user_id)]

    @property
    def is_admin(self) -> bool:
        """Whether the account has the role admin."""
        return ADMIN in self.roles

    def require_version(self, version: int | None) -> None:
        """Raise ABORTED (VERSION_MISMATCH) if `version` is given and differs from the stored version."""
        if version is not None and version != self.version:
            raise _changed_meanwhile()

    def require_email(self, email: str) -> None:
        """Raise ABORTED (VERSION_MISMATCH) unless the account's e-mail address is `email`."""
        if email != self.email:
            raise _changed_meanwhile()

    def require_emails(self, seen: User) -> None:
        """Raise ABORTED (VERSION_MISMATCH) if the current or a former address differs from that in `seen`."""
        self.require_email(seen.email)
        if self.former_emails != seen.former_emails:
            raise _changed_meanwhile()

    def rename(self, name: str, now: datetime) -> None:
        """Change the name shown to people."""
        self.name = name
        self.updated_at = now

    def expect_email(self, until: datetime | None, now: datetime) -> None:
        """Record that a change of the address is pending until `until`. None cancels the change."""
        self.pending_until = until
        self.updated_at = now

    def change_email(self, email: str, now: datetime) -> None:
        """Change the address to a new one, which the person has verified."""
        self.email = email
        self.email_deliverable = self.email_verified = True
        self.pending_until = None
        self.email_since = self.updated_at = now

    def undoable(self, now: datetime) -> list[FormerEmail]:
        """Return the former addresses that may still undo their change, oldest first."""
        return [former for former in self.former_emails if now < former.until]

    def verify_email(self, now: datetime) -> None:
        """Record that the person has verified the e-mail address."""
        self.email_verified = True
        self.updated_at = now

    def mark_undeliverable(self, at: datetime, now: datetime) -> bool:
        """Record that the address did not accept mail at `at`, and return whether that changes the account."""
        if not self.email_deliverable or at < self.email_since:
            return False
        self.email_deliverable = False
        self.updated_at = now
        return True

    def assign_roles(self, roles: frozenset[str], now: datetime) -> None:
        """Replace the roles."""
        self.roles = sorted(roles)
        self.updated_at = now

    def delete(self) -> list[Payload]:
        """Return the event of the account's deletion."""
        return [UserDeleted(user_id=self.id)]


@dataclass
class Credentials:
    """The password hash of an account, with the account's id. It is stored separately, so that no profile contains it.

    `generation` increases when every session must end (see `auth.account_access`): a session of another generation has
    ended.
    """

    id: str
    password_hash: str = field(repr=False)
    generation: int = 1
    version: int = 0

    def replace(self, known_hash: str, new_hash: str) -> None:
        """Set a new password. Raise ABORTED if another password was set since `known_hash` was checked."""
        if self.password_hash != known_hash:
            raise aborted("VERSION_MISMATCH", "The password was changed in the meantime.")
        self.password_hash = new_hash

    def lock(self) -> None:
        """Reject every password until a new one is set."""
        self.password_hash = ""

    def rehash(self, known_hash: str, new_hash: str) -> None:
        """Store a hash of the same password with new parameters. Do nothing if the password was replaced meanwhile."""
        if self.password_hash == known_hash:
            self.password_hash = new_hash


@dataclass
class EmailClaim:
    """The record that an e-mail address belongs to an account.

    `id` is the digest of the address, so that no key in the store identifies a person. `folding` is the version of the
    rules that made the digest (`emails.FOLDING`; 1 in rows without it).

    A claim with `until` is for a former address. It gives no access to the account, but nobody else can register the
    address before that time, so that the change can be undone.
    """

    id: str
    user_id: str
    until: datetime | None = None
    folding: int = 1
    version: int = 0

    @property
    def is_current(self) -> bool:
        """Whether this is the account's present address."""
        return self.until is None

    def is_taken(self, now: datetime) -> bool:
        """Return whether the address is unavailable to other accounts."""
        return self.until is None or now < self.until


@dataclass
class AdminRoster:
    """All accounts with the role admin, in one entity, so that the last two admins cannot demote each other."""

    id: str = "admins"
    user_ids: list[str] = field(default_factory=list)
    version: int = 0

    def record(self, user: User) -> None:
        """Add or remove the account according to its roles. Raises the errors of `remove`."""
        if user.is_admin and user.id not in self.user_ids:
            self.user_ids.append(user.id)
        elif not user.is_admin:
            self.remove(user.id)

    def remove(self, user_id: str) -> None:
        """Remove an account. Raise FAILED_PRECONDITION (LAST_ADMIN) if it is the only administrator."""
        if user_id not in self.user_ids:
            return
        if len(self.user_ids) == 1:
            raise failed_precondition("LAST_ADMIN", "The last administrator cannot be removed.")
        self.user_ids.remove(user_id)


@dataclass(frozen=True, repr=False)
class Address(PostalAddress):
    """A postal address in a person's address book."""

    id: str = ""


@dataclass
class AddressBook:
    """A person's postal addresses, oldest first. `id` is the id of the account."""

    id: str
    addresses: list[Address] = field(default_factory=list, repr=False)
    version: int = 0

    def add(self, address: Address) -> None:
        """Add an address. Raise RESOURCE_EXHAUSTED (TOO_MANY_ADDRESSES) if there are 20 already."""
        if len(self.addresses) >= MAX_ADDRESSES:
            # Waiting does not help: no retry_after.
            text = f"At most {MAX_ADDRESSES} addresses are kept."
            raise ServiceError(Code.RESOURCE_EXHAUSTED, "TOO_MANY_ADDRESSES", text)
        self.addresses.append(address)

    def replace(self, address: Address) -> None:
        """Replace the address with the same id. Raises NOT_FOUND (ADDRESS_NOT_FOUND)."""
        self.addresses[self._position(address.id)] = address

    def remove(self, address_id: str) -> None:
        """Remove an address. Raises NOT_FOUND (ADDRESS_NOT_FOUND)."""
        del self.addresses[self._position(address_id)]

    def _position(self, address_id: str) -> int:
        for position, address in enumerate(self.addresses):
            if address.id == address_id:
                return position
        raise not_found("Address", "ADDRESS_NOT_FOUND")


@dataclass
class Session:
    """A login and all tokens issued from it. Only the digest of the latest refresh token is stored."""

    id: str
    user_id: str
    # The generation of the credentials at the start of the session (see Credentials).
    generation: int
    token_digest: str = field(repr=False)
    created_at: datetime
    expires_at: datetime
    # The id of the device, if it was known before the login.
    device: str = ""
    version: int = 0

    @staticmethod
    def start(session_id: str, credentials: Credentials, token_digest: str, now: datetime, device: str) -> Session:
        """Return a new session. It ends after 30 days, even if it is refreshed."""
        end = now + SESSION_LIFE
        return Session(session_id, credentials.id, credentials.generation, token_digest, now, end, device=device)

    def has_ended(self, credentials: Credentials, now: datetime) -> bool:
        """Return whether the session has expired, or the generation of the credentials has changed since its start."""
        return now >= self.expires_at or self.generation != credentials.generation

    def rotate(self, presented: str, successor: str) -> bool:
        """Exchange the presented token for its successor; both are digests. Return False if it is not the latest one.

        A token of this session that is not the latest was already exchanged: somebody may have a copy, and the session
        must end.
        """
        if not compare_digest(presented, self.token_digest):
            return False
        self.token_digest = successor
        return True


def clean_name(text: str) -> str:
    """Return the name as one clean line. Raises INVALID_ARGUMENT with the field's name."""
    try:
        return clean_line(text, MAX_NAME)
    except TextError as error:
        raise invalid("The name is not valid.", ("name", str(error))) from None


def known_roles(roles: Iterable[str]) -> frozenset[str]:
    """Return `roles` as a set. Raises INVALID_ARGUMENT if it is empty or contains an unknown role."""
    wanted = frozenset(roles)
    if not wanted or not wanted <= ROLES:
        raise invalid("The roles are not valid.", ("roles", f"must be among {', '.join(sorted(ROLES))}; at least one"))
    return wanted


def existing(user: User | None) -> User:
    """Return the user. Raises NOT_FOUND (USER_NOT_FOUND) for None."""
    if user is None:
        raise no_such_user()
    return user


def no_such_user() -> ServiceError:
    """Return the error NOT_FOUND (USER_NOT_FOUND)."""
    return not_found("User", "USER_NOT_FOUND")


def email_taken() -> ServiceError:
    """Return the error ALREADY_EXISTS (EMAIL_TAKEN)."""
    return already_exists("EMAIL_TAKEN", "There is an account with this e-mail address already.")


def _changed_meanwhile() -> ServiceError:
    return aborted("VERSION_MISMATCH", "The account was changed in the meantime; read it again.")
