"""Accounts and sessions: the person, what proves them, their addresses, who administers, who is logged in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hmac import compare_digest

from events.catalog import Payload, UserDeleted, UserRegistered
from functions.runtime.addresses import PostalAddress
from functions.runtime.errors import Code, ServiceError, aborted, failed_precondition, invalid, not_found

CUSTOMER, ADMIN = "customer", "admin"
ROLES = frozenset({CUSTOMER, ADMIN})
MAX_ADDRESSES = 20
SESSION_LIFE = timedelta(days=30)
ATTEMPTS_WINDOW = timedelta(minutes=15)
UNDO_LIFE = timedelta(days=7)
MAX_FORMER_EMAILS = 5


@dataclass
class FormerEmail:
    """An address that the account had, which may take it back until `until`; `email` is its digest."""

    change_id: str
    email: str
    until: datetime


@dataclass
class User:
    """A person's profile. What names them stays out of the repr, and so out of logs."""

    id: str
    email: str = field(repr=False)
    name: str = field(repr=False)
    roles: list[str]
    created_at: datetime
    updated_at: datetime
    # When `email` came to be this one: a bounce from before speaks of another address.
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
        """A new account and the event that tells of it."""
        user = User(user_id, email, name, sorted(roles), now, now, email_since=now)
        return user, [UserRegistered(user_id=user_id)]

    @property
    def is_admin(self) -> bool:
        """Has the role admin."""
        return ADMIN in self.roles

    def require_version(self, version: int | None) -> None:
        """Raises ABORTED (VERSION_MISMATCH) when `version` is given and not the stored one."""
        if version is not None and version != self.version:
            raise aborted("VERSION_MISMATCH", "The account was changed in the meantime; read it again.")

    def require_email(self, email: str) -> None:
        """Raises ABORTED (VERSION_MISMATCH) when the e-mail is another one by now."""
        if email != self.email:
            raise aborted("VERSION_MISMATCH", "The account was changed in the meantime; read it again.")

    def rename(self, name: str, now: datetime) -> None:
        """Change the name shown to people."""
        self.name = name
        self.updated_at = now

    def require_emails(self, seen: User) -> None:
        """Raise ABORTED (VERSION_MISMATCH) when the present or a former address is another one than in `seen`."""
        self.require_email(seen.email)
        if self.former_emails != seen.former_emails:
            raise aborted("VERSION_MISMATCH", "The account was changed in the meantime; read it again.")

    def expect_email(self, until: datetime | None, now: datetime) -> None:
        """Note that another address waits for its code until then; None: not any more."""
        self.pending_until = until
        self.updated_at = now

    def move_to(self, email: str, now: datetime) -> None:
        """Change the e-mail to an address whose mail was proved to be read."""
        self.email = email
        self.email_deliverable = self.email_verified = True
        self.pending_until = None
        self.email_since = self.updated_at = now

    def undoable(self, now: datetime) -> list[FormerEmail]:
        """Return the former addresses that may still take the account back, oldest first."""
        return [former for former in self.former_emails if now < former.until]

    def verify_email(self, now: datetime) -> None:
        """Somebody proved that they read this account's mail."""
        self.email_verified = True
        self.updated_at = now

    def bounced(self, at: datetime, now: datetime) -> bool:
        """The address will never take mail, said at `at`; whether that changes anything."""
        if not self.email_deliverable or at < self.email_since:
            return False
        self.email_deliverable = False
        self.updated_at = now
        return True

    def assign(self, roles: frozenset[str], now: datetime) -> None:
        """Replace the roles."""
        self.roles = sorted(roles)
        self.updated_at = now

    def delete(self) -> list[Payload]:
        """The account ends."""
        return [UserDeleted(user_id=self.id)]


@dataclass
class Credentials:
    """What proves a person, under their account's id; apart from the profile, which thus shows no hash.

    `generation` grows when every session must end (`account_access`): a session of another generation is over.
    """

    id: str
    password_hash: str = field(repr=False)
    generation: int = 1
    version: int = 0

    def replace(self, known_hash: str, new_hash: str) -> None:
        """Set a new password; raises ABORTED when another one was set since `known_hash` was checked."""
        if self.password_hash != known_hash:
            raise aborted("VERSION_MISMATCH", "The password was changed in the meantime.")
        self.password_hash = new_hash

    def lock(self) -> None:
        """Make every password wrong until a new one is set."""
        self.password_hash = ""

    def rehash(self, known_hash: str, new_hash: str) -> None:
        """The same password, hashed by newer parameters; nothing if it was replaced since."""
        if self.password_hash == known_hash:
            self.password_hash = new_hash


@dataclass
class EmailClaim:
    """Whose an e-mail address is; `id` is its digest, so that no key in the store names a person.

    With `until` it is a former address: it proves nothing, but nobody else gets it before then, so that the change can
    be undone. `folding` is the version of the rules that made the digest (`rules.FOLDING`; 1 in rows without it).
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
    """Every account with the role admin, in one entity: two who demote each other at once still leave one."""

    id: str = "admins"
    user_ids: list[str] = field(default_factory=list)
    version: int = 0

    def record(self, user: User) -> None:
        """Bring the roster in line with the roles of `user`."""
        if user.is_admin and user.id not in self.user_ids:
            self.user_ids.append(user.id)
        elif not user.is_admin:
            self.strike(user.id)

    def strike(self, user_id: str) -> None:
        """This account is no admin any more.

        Raises FAILED_PRECONDITION (LAST_ADMIN) if it was the only one.
        """
        if user_id not in self.user_ids:
            return
        if len(self.user_ids) == 1:
            raise failed_precondition("LAST_ADMIN", "The last administrator cannot be removed.")
        self.user_ids.remove(user_id)


@dataclass(frozen=True, repr=False)
class Address(PostalAddress):
    """A postal address in somebody's book."""

    id: str = ""


@dataclass
class AddressBook:
    """A person's addresses, oldest first, under the id of their account."""

    id: str
    addresses: list[Address] = field(default_factory=list, repr=False)
    version: int = 0

    def add(self, address: Address) -> None:
        """Raises RESOURCE_EXHAUSTED (TOO_MANY_ADDRESSES) beyond 20."""
        if len(self.addresses) >= MAX_ADDRESSES:
            # Waiting does not help: no retry_after.
            text = f"At most {MAX_ADDRESSES} addresses are kept."
            raise ServiceError(Code.RESOURCE_EXHAUSTED, "TOO_MANY_ADDRESSES", text)
        self.addresses.append(address)

    def replace(self, address: Address) -> None:
        """Raises NOT_FOUND (ADDRESS_NOT_FOUND)."""
        self.addresses[self._position(address.id)] = address

    def remove(self, address_id: str) -> None:
        """Raises NOT_FOUND (ADDRESS_NOT_FOUND)."""
        del self.addresses[self._position(address_id)]

    def _position(self, address_id: str) -> int:
        for position, address in enumerate(self.addresses):
            if address.id == address_id:
                return position
        raise not_found("Address", "ADDRESS_NOT_FOUND")


@dataclass
class Session:
    """One login and every token that came of it; only the digest of the latest refresh token is kept."""

    id: str
    user_id: str
    # That of the credentials by which it was started: see Credentials.
    generation: int
    token_digest: str = field(repr=False)
    created_at: datetime
    expires_at: datetime
    version: int = 0

    @staticmethod
    def start(session_id: str, credentials: Credentials, token_digest: str, now: datetime) -> Session:
        """A session of 30 days, however often it is refreshed."""
        return Session(
            session_id, credentials.id, credentials.generation, token_digest, now, now + SESSION_LIFE
        )

    def is_over(self, credentials: Credentials, now: datetime) -> bool:
        """Its time has passed, or the password was replaced since."""
        return now >= self.expires_at or self.generation != credentials.generation

    def rotate(self, presented: str, successor: str) -> bool:
        """Trade the presented token for its successor (digests both); False when it is not the latest one.

        A token of this session that is not the latest was traded before: somebody has a copy, and the session
        must end.
        """
        if not compare_digest(presented, self.token_digest):
            return False
        self.token_digest = successor
        return True


@dataclass
class LoginAttempts:
    """Failed proofs in the last 15 minutes, of one account or from one network address; `id` is a digest."""

    id: str
    failures: list[datetime] = field(default_factory=list)
    version: int = 0

    @property
    def expires_at(self) -> datetime | None:
        """When the last failure stops counting."""
        return max(self.failures) + ATTEMPTS_WINDOW if self.failures else None

    def wait(self, limit: int, now: datetime) -> float:
        """Seconds until another attempt is allowed; 0 for at once."""
        recent = self._recent(now)
        if len(recent) < limit:
            return 0.0
        return (recent[-limit] + ATTEMPTS_WINDOW - now).total_seconds()

    def fail(self, limit: int, now: datetime) -> None:
        """Count a failure; no more than `limit` are worth remembering."""
        self.failures = [*self._recent(now), now][-limit:]

    def _recent(self, now: datetime) -> list[datetime]:
        return [at for at in self.failures if at + ATTEMPTS_WINDOW > now]


@dataclass
class Tally:
    """How often something happened within a window of time, which ends at `expires_at`; the window is in the id."""

    id: str
    expires_at: datetime
    count: int = 0
    version: int = 0


def known_roles(roles: Iterable[str]) -> frozenset[str]:
    """`roles` as a set; raises INVALID_ARGUMENT when empty or with a role that there is not."""
    wanted = frozenset(roles)
    if not wanted or not wanted <= ROLES:
        raise invalid(
            "The roles are not valid.", ("roles", f"must be among {', '.join(sorted(ROLES))}; at least one")
        )
    return wanted


def no_such_user() -> ServiceError:
    """NOT_FOUND (USER_NOT_FOUND)."""
    return not_found("User", "USER_NOT_FOUND")
