"""Entities of accounts: the user, their credentials, e-mail claims, addresses and sessions; who administers."""

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
    """An address that the account had; its reader may undo the change until `until`. `email` is its digest."""

    change_id: str
    email: str
    until: datetime


@dataclass
class User:
    """A person's profile. What identifies the person is left out of the repr, and so out of logs."""

    id: str
    email: str = field(repr=False)
    name: str = field(repr=False)
    roles: list[str]
    created_at: datetime
    updated_at: datetime
    # Since when `email` is the account's: a bounce from before is about another address.
    email_since: datetime
    email_deliverable: bool = True
    email_verified: bool = False
    # While a change of the address waits for its code: until when. The new address is in the challenge.
    pending_until: datetime | None = None
    # Oldest first.
    former_emails: list[FormerEmail] = field(default_factory=list)
    version: int = 0

    @staticmethod
    def register(
        user_id: str, email: str, name: str, roles: Iterable[str], now: datetime
    ) -> tuple[User, list[Payload]]:
        """Make an account and the event that announces it."""
        user = User(user_id, email, name, sorted(roles), now, now, email_since=now)
        return user, [UserRegistered(user_id=user_id)]

    @property
    def is_admin(self) -> bool:
        """Has the role admin."""
        return ADMIN in self.roles

    def require_version(self, version: int | None) -> None:
        """Raise ABORTED (VERSION_MISMATCH) if `version` is given and not the stored one."""
        if version is not None and version != self.version:
            raise _changed_meanwhile()

    def require_email(self, email: str) -> None:
        """Raise ABORTED (VERSION_MISMATCH) if the account has another e-mail address."""
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
        """Record that a change of the address waits for its code until then; None cancels it."""
        self.pending_until = until
        self.updated_at = now

    def change_email(self, email: str, now: datetime) -> None:
        """Change the address to one whose mail the person has proved to read."""
        self.email = email
        self.email_deliverable = self.email_verified = True
        self.pending_until = None
        self.email_since = self.updated_at = now

    def undoable(self, now: datetime) -> list[FormerEmail]:
        """Return the former addresses whose readers may still undo the change, oldest first."""
        return [former for former in self.former_emails if now < former.until]

    def verify_email(self, now: datetime) -> None:
        """Record that the person has proved to read this account's mail."""
        self.email_verified = True
        self.updated_at = now

    def mark_undeliverable(self, at: datetime, now: datetime) -> bool:
        """Record that the address does not accept mail, as of `at`; return whether that changes anything."""
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
    """The password's hash, under the account's id; separate from the profile, which thus never contains it.

    `generation` grows when every session must end (`auth.account_access`): a session of another generation has ended.
    """

    id: str
    password_hash: str = field(repr=False)
    generation: int = 1
    version: int = 0

    def replace(self, known_hash: str, new_hash: str) -> None:
        """Set a new password; raise ABORTED if another one was set since `known_hash` was checked."""
        if self.password_hash != known_hash:
            raise aborted("VERSION_MISMATCH", "The password was changed in the meantime.")
        self.password_hash = new_hash

    def lock(self) -> None:
        """Reject every password until a new one is set."""
        self.password_hash = ""

    def rehash(self, known_hash: str, new_hash: str) -> None:
        """Store the hash of the same password with newer parameters; ignore it if the password was replaced since."""
        if self.password_hash == known_hash:
            self.password_hash = new_hash


@dataclass
class EmailClaim:
    """The account that an e-mail address belongs to; `id` is its digest, so that no key in the store names a person.

    With `until` it is a former address: it proves nothing, but nobody else can register it before then, so that the
    change can be undone. `folding` is the version of the rules that made the digest (`emails.FOLDING`; 1 in rows
    without it).
    """

    id: str
    user_id: str
    until: datetime | None = None
    folding: int = 1
    version: int = 0

    @property
    def is_current(self) -> bool:
        """Is the address that the account has now."""
        return self.until is None

    def is_taken(self, now: datetime) -> bool:
        """Return whether nobody else may have the address."""
        return self.until is None or now < self.until


@dataclass
class AdminRoster:
    """Every account with the role admin, in one entity: two admins who demote each other at once leave one."""

    id: str = "admins"
    user_ids: list[str] = field(default_factory=list)
    version: int = 0

    def record(self, user: User) -> None:
        """Add or remove the account according to its roles. Raises what `remove` raises."""
        if user.is_admin and user.id not in self.user_ids:
            self.user_ids.append(user.id)
        elif not user.is_admin:
            self.remove(user.id)

    def remove(self, user_id: str) -> None:
        """Remove an account; raise FAILED_PRECONDITION (LAST_ADMIN) if it is the only one."""
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
    """A person's addresses, oldest first, under the id of their account."""

    id: str
    addresses: list[Address] = field(default_factory=list, repr=False)
    version: int = 0

    def add(self, address: Address) -> None:
        """Add an address; raise RESOURCE_EXHAUSTED (TOO_MANY_ADDRESSES) beyond 20."""
        if len(self.addresses) >= MAX_ADDRESSES:
            # Waiting does not help: no retry_after.
            text = f"At most {MAX_ADDRESSES} addresses are kept."
            raise ServiceError(Code.RESOURCE_EXHAUSTED, "TOO_MANY_ADDRESSES", text)
        self.addresses.append(address)

    def replace(self, address: Address) -> None:
        """Replace the address with the same id; raise NOT_FOUND (ADDRESS_NOT_FOUND)."""
        self.addresses[self._position(address.id)] = address

    def remove(self, address_id: str) -> None:
        """Remove an address; raise NOT_FOUND (ADDRESS_NOT_FOUND)."""
        del self.addresses[self._position(address_id)]

    def _position(self, address_id: str) -> int:
        for position, address in enumerate(self.addresses):
            if address.id == address_id:
                return position
        raise not_found("Address", "ADDRESS_NOT_FOUND")


@dataclass
class Session:
    """One login and every token that came of it; only the digest of the latest refresh token is stored."""

    id: str
    user_id: str
    # That of the credentials with which it was started: see Credentials.
    generation: int
    token_digest: str = field(repr=False)
    created_at: datetime
    expires_at: datetime
    version: int = 0

    @staticmethod
    def start(session_id: str, credentials: Credentials, token_digest: str, now: datetime) -> Session:
        """Start a session of 30 days, however often it is refreshed."""
        return Session(
            session_id, credentials.id, credentials.generation, token_digest, now, now + SESSION_LIFE
        )

    def has_ended(self, credentials: Credentials, now: datetime) -> bool:
        """Return whether it has expired, or the password was replaced since."""
        return now >= self.expires_at or self.generation != credentials.generation

    def rotate(self, presented: str, successor: str) -> bool:
        """Exchange the presented token for its successor (digests both); return False if it is not the latest one.

        A token of this session that is not the latest was exchanged before: somebody has a copy, and the session
        must end.
        """
        if not compare_digest(presented, self.token_digest):
            return False
        self.token_digest = successor
        return True


def clean_name(text: str) -> str:
    """Return the name that is shown to people, as a clean line; raise INVALID_ARGUMENT with the field's name."""
    try:
        return clean_line(text, MAX_NAME)
    except TextError as error:
        raise invalid("The name is not valid.", ("name", str(error))) from None


def known_roles(roles: Iterable[str]) -> frozenset[str]:
    """Return `roles` as a set; raise INVALID_ARGUMENT if there is none, or an unknown one."""
    wanted = frozenset(roles)
    if not wanted or not wanted <= ROLES:
        raise invalid(
            "The roles are not valid.", ("roles", f"must be among {', '.join(sorted(ROLES))}; at least one")
        )
    return wanted


def existing(user: User | None) -> User:
    """Return the user; raise NOT_FOUND (USER_NOT_FOUND) for None."""
    if user is None:
        raise no_such_user()
    return user


def no_such_user() -> ServiceError:
    """NOT_FOUND (USER_NOT_FOUND)."""
    return not_found("User", "USER_NOT_FOUND")


def email_taken() -> ServiceError:
    """ALREADY_EXISTS (EMAIL_TAKEN)."""
    return already_exists("EMAIL_TAKEN", "There is an account with this e-mail address already.")


def _changed_meanwhile() -> ServiceError:
    return aborted("VERSION_MISMATCH", "The account was changed in the meantime; read it again.")
