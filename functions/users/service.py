"""Use cases of accounts: registration, profile, password, roles, addresses, export, deletion, contacts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from events.catalog import NotificationBounced, UserChallenged, UserEmailChangeRequested, UserPasswordChanged
from functions.runtime.addresses import normalise
from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, already_exists, exhausted, invalid
from functions.runtime.identity import Identity, require_admin, require_self_or_admin, require_service
from functions.runtime.ids import new_id
from functions.runtime.inbox import InboxRecord
from functions.runtime.paging import MAX_LIMIT, page_limit
from functions.runtime.store.port import Changes, Entity, Page, Ref, Store
from functions.users.auth.account_access import AccountAccess
from functions.users.auth.authenticator import PasswordAuthenticator
from functions.users.auth.challenges import Challenge, Purpose, challenge_id
from functions.users.auth.email_change import former_refs
from functions.users.auth.passwords import PasswordHasher, check_password
from functions.users.auth.throttle import Throttle
from functions.users.domain import (
    ADMIN,
    CUSTOMER,
    Address,
    AddressBook,
    AdminRoster,
    Credentials,
    EmailClaim,
    User,
    clean_name,
    email_taken,
    existing,
    known_roles,
    no_such_user,
)
from functions.users.emails import FOLDING, email_key, legacy_email_key, normalise_email
from functions.users.store import ROSTER_ID, newest_users
from observability.failpoints import failpoints

log = logging.getLogger("shop.users")


@dataclass(frozen=True, repr=False)
class RegisterUser:
    """Create an account. `client_address` is empty if it is unknown."""

    email: str
    password: str
    name: str
    client_address: str = ""


@dataclass(frozen=True)
class ListUsers:
    """List accounts. A `limit` of 0 means the default page size. An empty `cursor` means the first page."""

    limit: int = 0
    cursor: str = ""


@dataclass(frozen=True, repr=False)
class UpdateUser:
    """Change a profile. None leaves a field unchanged.

    `version` is the version that the caller read, or None for any. `current_password` is the caller's, and may be empty
    after a recent login.
    """

    user_id: str
    name: str | None = None
    email: str | None = None
    version: int | None = None
    current_password: str = ""


@dataclass(frozen=True, repr=False)
class ChangePassword:
    """Replace the password of the caller's account."""

    user_id: str
    current_password: str
    new_password: str


@dataclass(frozen=True, repr=False)
class SetRoles:
    """Replace the roles of an account. `current_password` is the caller's, and may be empty after a recent login."""

    user_id: str
    roles: Sequence[str]
    current_password: str = ""


@dataclass(frozen=True, repr=False)
class ExportUser:
    """Read a person's stored data. `current_password` is the caller's, and may be empty after a recent login."""

    user_id: str
    current_password: str = ""


@dataclass(frozen=True, repr=False)
class DeleteUser:
    """Delete an account. `current_password` is the caller's, and may be empty after a recent login."""

    user_id: str
    current_password: str = ""


@dataclass(frozen=True, repr=False)
class AddAddress:
    """Add an address to the address book. Its `id` is ignored."""

    user_id: str
    address: Address


@dataclass(frozen=True, repr=False)
class UpdateAddress:
    """Replace the stored address that has the same id as `address`."""

    user_id: str
    address: Address


@dataclass(frozen=True)
class DeleteAddress:
    """Delete an address."""

    user_id: str
    address_id: str


@dataclass(frozen=True)
class GetContacts:
    """Read the contact data of the accounts `user_ids`, and of every admin if `admins` is true."""

    user_ids: Sequence[str] = ()
    admins: bool = False


class UsersService:
    """Use cases of accounts. Collaborators are fixed at start; methods are safe to call concurrently.

    If `hide_account_existence` is true, a registration with an address that already has an account gets the same answer
    as any other registration.
    """

    def __init__(
        self,
        store: Store,
        hasher: PasswordHasher,
        authenticator: PasswordAuthenticator,
        throttle: Throttle,
        clock: Clock,
        *,
        hide_account_existence: bool,
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._authenticator = authenticator
        self._throttle = throttle
        self._clock = clock
        self._hide_account_existence = hide_account_existence

    async def register(self, command: RegisterUser) -> User:
        """Create an account with the role customer.

        If the existence of accounts is hidden and the address already has an account, the answer is the same as
        for a new account, after the same work, and the owner of the address gets a mail.

        Raises:
            InvalidArgument: INVALID_ARGUMENT, WEAK_PASSWORD.
            ResourceExhausted: TOO_MANY_REGISTRATIONS.
            AlreadyExists: EMAIL_TAKEN, unless the existence of accounts is hidden.
        """
        email, name = _checked(command)
        await self._throttle.registration(command.client_address)
        return await self._create(command, email, name, hide_account_existence=self._hide_account_existence)

    async def ensure_admin(self, email: str, password: str) -> None:
        """Create the first administrator, unless there has ever been one. An account with this e-mail is not changed.

        The roster of administrators shows whether there has been one: it is stored with the first administrator and
        never deleted. So the password in the settings cannot create another administrator later, even if the settings
        name another address or the administrator's account was deleted. Raises INVALID_ARGUMENT (WEAK_PASSWORD).
        """
        if await self._store.get(AdminRoster, ROSTER_ID) is not None:
            log.warning("ADMIN_PASSWORD is not needed any more: remove it from the environment")
            return
        command = RegisterUser(email, password, "Administrator")
        try:
            await self._create(command, *_checked(command), first_admin=True)
        except ServiceError as error:
            if error.reason not in (
                "EMAIL_TAKEN",
                "ADMIN_EXISTS",
            ):  # created by another process that starts at the same time
                raise
        if await self._store.get(AdminRoster, ROSTER_ID) is None:
            log.warning("the account of ADMIN_EMAIL does not have the role admin")

    async def get(self, user_id: str, caller: Identity) -> User:
        """Return a profile. Owner and admins only. Raises NOT_FOUND (USER_NOT_FOUND)."""
        require_self_or_admin(caller, user_id)
        return existing(await self._store.get(User, user_id))

    async def list_users(self, query: ListUsers, caller: Identity) -> Page[User]:
        """Return a page of accounts, newest first. Admins only. Raises INVALID_ARGUMENT (INVALID_CURSOR)."""
        require_admin(caller)
        return await newest_users(self._store, page_limit(query.limit), query.cursor or None)

    async def update(self, command: UpdateUser, caller: Identity) -> User:
        """Change the name or the e-mail address. A new address takes effect once the code mailed to it is confirmed.

        A command with the current e-mail address cancels a pending change of the address.

        Raises:
            Unauthenticated: REAUTHENTICATION_REQUIRED, INVALID_CREDENTIALS, for a new e-mail address.
            Aborted: VERSION_MISMATCH.
            AlreadyExists: EMAIL_TAKEN.
            InvalidArgument: INVALID_ARGUMENT.
            ResourceExhausted: TOO_MANY_ATTEMPTS, for the sixth requested change of the address or the fourth mail in 15
                minutes.
        """
        user_id = command.user_id
        seen = await self.get(user_id, caller)
        seen.require_version(command.version)
        name = seen.name if command.name is None else clean_name(command.name)
        email = seen.email if command.email is None else normalise_email(command.email)
        cancels = command.email is not None and email == seen.email and seen.pending_until is not None
        if (name, email) == (seen.name, seen.email) and not cancels:
            return seen
        if email != seen.email:
            await self._authenticator.reauthenticate(caller, command.current_password)
            await self._throttle.email_change(user_id)
        key, claim_id = challenge_id(Purpose.EMAIL_CHANGE, user_id), email_key(email)

        def change(found: Sequence[Any]) -> Changes[User]:
            user, challenge, claim, now = existing(found[0]), found[1], found[2], self._clock.now()
            user.require_version(command.version)
            if command.name is not None:
                user.rename(name, now)
            if cancels:
                user.expect_email(None, now)
                return Changes(user, put=[user], delete=[challenge] if challenge else [])
            if email == seen.email:
                return Changes(user, put=[user])
            user.require_email(seen.email)
            if claim and claim.is_taken(now) and claim.user_id != user_id:
                raise email_taken()
            challenge = challenge or Challenge(key, user_id, claim_id, now)
            if not challenge.request(Purpose.EMAIL_CHANGE, claim_id, now, address=email):
                raise exhausted("TOO_MANY_ATTEMPTS", "The mail was sent several times; look for it.", 900)
            user.expect_email(challenge.expires_at, now)
            return Changes(user, put=[user, challenge], events=[UserEmailChangeRequested(user_id=user_id)])

        refs = [Ref(User, user_id), Ref(Challenge, key), Ref(EmailClaim, claim_id)]
        with failpoints("users.update"):
            return await self._store.transact(refs, change)

    async def change_password(self, command: ChangePassword, caller: Identity) -> None:
        """Replace the password, and revoke all existing access (see `auth.account_access`).

        Raises:
            Unauthenticated: INVALID_CREDENTIALS, for the current password.
            ResourceExhausted: TOO_MANY_ATTEMPTS.
            InvalidArgument: WEAK_PASSWORD, for the new password.
            Aborted: VERSION_MISMATCH, if another password was set concurrently.
        """
        user_id = command.user_id
        user = await self.get(user_id, caller)
        check_password(command.new_password, user.email, "new_password")
        known = await self._authenticator.check_current(user_id, command.current_password)
        new_hash = await self._hasher.hash(command.new_password)

        def change(found: Sequence[Any]) -> Changes[None]:
            access = AccountAccess.from_found(found)
            if access.credentials is None:
                raise no_such_user()
            access.credentials.replace(known.password_hash, new_hash)
            put, delete = access.revoke(user_id, self._clock.now())
            return Changes(None, put=put, delete=delete, events=[UserPasswordChanged(user_id=user_id)])

        with failpoints("users.password"):
            await self._store.transact(AccountAccess.refs(user_id), change)
        log.info("password_changed", extra={"user_id": user_id})

    async def set_roles(self, command: SetRoles, caller: Identity) -> User:
        """Replace the roles of an account. Admins only. Its access tokens and mailed tokens become invalid.

        Raises:
            InvalidArgument: INVALID_ARGUMENT, for an unknown role.
            Unauthenticated: REAUTHENTICATION_REQUIRED, INVALID_CREDENTIALS, about the calling admin.
            FailedPrecondition: LAST_ADMIN.
        """
        require_admin(caller)
        roles, user_id = known_roles(command.roles), command.user_id
        await self._authenticator.reauthenticate(caller, command.current_password)

        def change(found: Sequence[Any]) -> Changes[User]:
            user, roster, now = existing(found[0]), found[1] or AdminRoster(), self._clock.now()
            user.assign_roles(roles, now)
            roster.record(user)
            put, delete = AccountAccess.from_found(found[2:]).revoke(user_id, now, keep_sessions=True)
            return Changes(user, put=[user, roster, *put], delete=delete)

        refs = [Ref(User, user_id), Ref(AdminRoster, ROSTER_ID), *AccountAccess.refs(user_id)]
        user = await self._store.transact(refs, change)
        log.info("roles_set", extra={"user_id": user_id, "roles": user.roles, "by": caller.subject})
        return user

    async def export(self, command: ExportUser, caller: Identity) -> tuple[User, AddressBook]:
        """Return the profile and the address book of a person.

        Raises UNAUTHENTICATED (REAUTHENTICATION_REQUIRED, INVALID_CREDENTIALS) and NOT_FOUND (USER_NOT_FOUND).
        """
        user = await self.get(command.user_id, caller)
        await self._authenticator.reauthenticate(caller, command.current_password)
        book = await self._store.get(AddressBook, command.user_id)
        return user, book or AddressBook(command.user_id)

    async def delete(self, command: DeleteUser, caller: Identity) -> None:
        """Delete all data that identifies the person, including the digests of their addresses, and revoke all access.

        Raises:
            Unauthenticated: REAUTHENTICATION_REQUIRED, INVALID_CREDENTIALS.
            FailedPrecondition: LAST_ADMIN.
            Aborted: VERSION_MISMATCH, if the e-mail address was changed concurrently.
        """
        user_id = command.user_id
        seen = await self.get(user_id, caller)
        await self._authenticator.reauthenticate(caller, command.current_password)
        access_refs = AccountAccess.refs(user_id)

        def change(found: Sequence[Any]) -> Changes[None]:
            user, roster = existing(found[0]), found[1]
            access, owned = found[2 : 2 + len(access_refs)], found[2 + len(access_refs) :]
            user.require_emails(seen)  # the claims were read for the addresses in `seen`
            put, delete = AccountAccess.from_found(access).delete(user_id, self._clock.now())
            if roster and user.is_admin:
                roster.remove(user.id)
                put.append(roster)
            # A former address may belong to another account by now.
            owned = [each for each in owned if each and getattr(each, "user_id", user_id) == user_id]
            return Changes(None, put=put, delete=[*delete, user, *owned], events=user.delete())

        refs = [
            Ref(User, user_id),
            Ref(AdminRoster, ROSTER_ID),
            *access_refs,
            Ref(AddressBook, user_id),
            Ref(EmailClaim, email_key(seen.email)),
            *former_refs(seen),
        ]
        with failpoints("users.delete"):
            await self._store.transact(refs, change)
            self._store.request_purge()
            log.info("user_deleted", extra={"user_id": user_id, "by": caller.subject})

    async def list_addresses(self, user_id: str, caller: Identity) -> list[Address]:
        """Return a person's addresses, oldest first. Raises NOT_FOUND (USER_NOT_FOUND)."""
        require_self_or_admin(caller, user_id)
        book = await self._store.get(AddressBook, user_id)
        if book is None:
            raise no_such_user()
        return book.addresses

    async def add_address(self, command: AddAddress, caller: Identity) -> Address:
        """Add an address with a new id to the address book, and return it.

        Raises INVALID_ARGUMENT and RESOURCE_EXHAUSTED (TOO_MANY_ADDRESSES).
        """
        require_self_or_admin(caller, command.user_id)
        checked = _checked_address(command.address, new_id("adr"))
        await self._edit_addresses(command.user_id, lambda book: book.add(checked))
        return checked

    async def update_address(self, command: UpdateAddress, caller: Identity) -> Address:
        """Replace an address, and return the new address. Raises INVALID_ARGUMENT and NOT_FOUND (ADDRESS_NOT_FOUND)."""
        require_self_or_admin(caller, command.user_id)
        checked = _checked_address(command.address, command.address.id)
        await self._edit_addresses(command.user_id, lambda book: book.replace(checked))
        return checked

    async def delete_address(self, command: DeleteAddress, caller: Identity) -> None:
        """Delete an address. Raises NOT_FOUND (ADDRESS_NOT_FOUND)."""
        require_self_or_admin(caller, command.user_id)
        await self._edit_addresses(command.user_id, lambda book: book.remove(command.address_id))

    async def get_contacts(self, query: GetContacts, caller: Identity) -> list[User]:
        """Return the requested accounts that exist. Only the notifications service may call this."""
        require_service(caller, "notifications")
        if len(query.user_ids) > MAX_LIMIT:
            raise invalid("Too many accounts at once.", ("user_ids", f"must be at most {MAX_LIMIT}"))
        wanted = dict.fromkeys(query.user_ids)
        if query.admins:
            roster = await self._store.get(AdminRoster, ROSTER_ID)
            wanted.update(dict.fromkeys(roster.user_ids if roster else ()))
        return list((await self._store.get_many(User, list(wanted))).values())

    async def on_notification_bounced(self, event: NotificationBounced, inbox: InboxRecord) -> None:
        """Mark the account's address as undeliverable. Ignore a bounce from before the account had this address."""

        def change(found: Sequence[Any]) -> Changes[bool]:
            user: User | None = found[0]
            changed = user is not None and user.mark_undeliverable(inbox.time, self._clock.now())
            return Changes(changed, put=[user] if user and changed else [])

        with failpoints("users.bounced"):
            changed = await self._store.transact([Ref(User, event.user_id)], change, idempotency=inbox)
        if changed:
            log.info("email_undeliverable", extra={"user_id": event.user_id})

    async def _create(
        self,
        command: RegisterUser,
        email: str,
        name: str,
        *,
        hide_account_existence: bool = False,
        first_admin: bool = False,
    ) -> User:
        """Create an account with a normalised e-mail address and a clean name.

        Raises ALREADY_EXISTS (EMAIL_TAKEN), unless the existence of accounts is hidden; ADMIN_EXISTS for a
        `first_admin` if there is or was an administrator already.
        """
        claim = EmailClaim(email_key(email), new_id("usr"), folding=FOLDING)
        known = await self._store.get(EmailClaim, claim.id)
        if known and known.is_taken(self._clock.now()) and not hide_account_existence:
            raise email_taken()  # saves the expensive hash; the transaction below decides
        reserved = await self._is_reserved_for_legacy_account(command.email)
        credentials = Credentials(claim.user_id, await self._hasher.hash(command.password))
        roles = (ADMIN, CUSTOMER) if first_admin else (CUSTOMER,)
        user, events = User.register(claim.user_id, email, name, roles, self._clock.now())
        challenge = challenge_id(Purpose.REGISTRATION, known.user_id if known else user.id)

        def change(found: Sequence[Any]) -> Changes[User]:
            taken = found[0] is not None and found[0].is_taken(self._clock.now())
            if (taken or reserved) and not hide_account_existence:
                raise email_taken()
            if taken:
                return _answer_like_new(user, found[0], found[1], challenge, self._clock.now())
            if reserved:
                return Changes(replace(user, version=1))
            put: list[Entity] = [claim, credentials, user, AddressBook(user.id)]
            if first_admin:
                if found[5] is not None:
                    raise already_exists("ADMIN_EXISTS", "There is or was an administrator already.")
                put.append(AdminRoster(user_ids=[user.id]))
            return Changes(user, put=put, events=events)

        refs = [Ref(EmailClaim, claim.id), Ref(Challenge, challenge)]
        refs += [Ref(kind, user.id) for kind in (Credentials, User, AddressBook)]
        refs += [Ref(AdminRoster, ROSTER_ID)] if first_admin else []
        with failpoints("users.register"):
            registered = await self._store.transact(refs, change)
            if registered is user:
                log.info("user_registered", extra={"user_id": user.id})
            else:
                log.info("registered_again", extra={"user_id": known.user_id if known else ""})
        return registered

    async def _is_reserved_for_legacy_account(self, email: str) -> bool:
        """Return whether this address may belong to an existing account that is stored under another address.

        Version 1 of the folding rules (see `emails.FOLDING`) stored some addresses with another domain. Nobody else may
        register this address until the account's owner has verified the stored address.
        """
        key = legacy_email_key(email)
        if key is None:
            return False
        claim = await self._store.get(EmailClaim, key)
        owner = await self._store.get(User, claim.user_id if claim else "usr_nobody")
        return bool(claim and claim.folding == 1 and claim.is_current and owner and not owner.email_verified)

    async def _edit_addresses(self, user_id: str, edit: Callable[[AddressBook], None]) -> None:
        def change(book: AddressBook | None) -> tuple[AddressBook, Sequence[Any]]:
            if book is None:  # the book is created and deleted with the account
                raise no_such_user()
            edit(book)
            return book, ()

        await self._store.update(AddressBook, user_id, change)


def _checked(command: RegisterUser) -> tuple[str, str]:
    """Return the normalised e-mail address and the clean name.

    Raises INVALID_ARGUMENT (INVALID_ARGUMENT, WEAK_PASSWORD).
    """
    email, name = normalise_email(command.email), clean_name(command.name)
    check_password(command.password, email)
    return email, name


def _answer_like_new(user: User, claim: EmailClaim, found: Challenge | None, key: str, now: datetime) -> Changes[User]:
    """Return the answer for a new account, and request a mail to the owner of the address, who may need a new password.

    `found` is the owner's challenge with the id `key`, if there is one. An owner who registered just now gets no mail,
    and neither does a former address. That is only reserved for the account that had it, so that the change can be
    undone.
    """
    answer = replace(user, version=1)
    if not claim.is_current or key != challenge_id(Purpose.REGISTRATION, claim.user_id):
        return Changes(answer)  # the second case: registered just now, so the owner needs no mail
    challenge = found or Challenge(key, claim.user_id, claim.id, now)
    requested = challenge.request(Purpose.REGISTRATION, claim.id, now)
    event = UserChallenged(user_id=claim.user_id, purpose="PASSWORD_RESET", occasion="REGISTRATION")
    return Changes(answer, put=[challenge], events=[event] if requested else [])


def _checked_address(address: Address, address_id: str) -> Address:
    clean, wrong = normalise(address, "address")
    if wrong:
        raise invalid("The address is not valid.", *wrong)
    return replace(clean, id=address_id)
