"""Use cases of accounts: registration, profiles, roles, addresses, contacts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from events.catalog import UserChallenged, UserEmailChangeRequested
from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, already_exists, exhausted, invalid
from functions.runtime.identity import Identity, require_admin, require_self_or_admin, require_service
from functions.runtime.ids import new_id
from functions.runtime.paging import MAX_LIMIT, page_limit
from functions.runtime.store.port import Changes, IdempotencyRecord, Page, Ref, Store
from functions.users.account_access import AccountAccess
from functions.users.challenge import Challenge, Purpose, challenge_id
from functions.users.domain import (
    ADMIN,
    CUSTOMER,
    AddressBook,
    AdminRoster,
    Credentials,
    EmailClaim,
    User,
    known_roles,
    no_such_user,
)
from functions.users.email_change import former_refs
from functions.users.keys import KeyRing
from functions.users.passwords import Hasher
from functions.users.proof import Proof
from functions.users.rules import FOLDING, check_password, clean_name, normal_email
from functions.users.store import ROSTER_ID, earlier_key, email_key, newest_users
from functions.users.throttle import Throttle
from observability.failpoints import failpoint

log = logging.getLogger("shop.users")


@dataclass(frozen=True, repr=False)
class Registration:
    """A new account; `client_address` may be empty. `first_admin`: only where there has never been an administrator."""

    email: str
    password: str
    name: str
    roles: Sequence[str] = (CUSTOMER,)
    client_address: str = ""
    first_admin: bool = False


@dataclass(frozen=True, repr=False)
class ProfileChange:
    """What to change; None leaves it. `version`: the one that was read, None for whatever is stored.

    `current_password` is the caller's; empty where their login is recent.
    """

    name: str | None = None
    email: str | None = None
    version: int | None = None
    current_password: str = ""


async def register(
    wanted: Registration,
    *,
    discreet: bool = False,
    store: Store,
    hasher: Hasher,
    throttle: Throttle | None = None,
    clock: Clock,
) -> User:
    """Create an account; without a `throttle` it does not count as a registration.

    An address that has an account raises ALREADY_EXISTS (EMAIL_TAKEN); where `discreet`, it gets the answer of a new
    one, after the same work, and its owner gets a mail: whoever asks does not learn who has an account.

    Raises:
        InvalidArgument: INVALID_ARGUMENT, WEAK_PASSWORD.
        ResourceExhausted: TOO_MANY_REGISTRATIONS.
        AlreadyExists: EMAIL_TAKEN; ADMIN_EXISTS for a `first_admin` who would not be the first.
    """
    email = normal_email(wanted.email)
    name = clean_name(wanted.name)
    check_password(wanted.password, email)
    if throttle is not None:
        await throttle.register(wanted.client_address)
    claim = EmailClaim(email_key(email), new_id("usr"), folding=FOLDING)
    known = await store.get(EmailClaim, claim.id)
    if known and known.is_taken(clock.now()) and not discreet:
        raise _email_taken()  # before the dear hash; the transaction below is what decides
    held = await _held_under_earlier_rules(wanted.email, store=store)
    credentials = Credentials(claim.user_id, await hasher.hash(wanted.password))
    user, events = User.register(claim.user_id, email, name, wanted.roles, clock.now())
    challenge = challenge_id(Purpose.REGISTRATION, known.user_id if known else user.id)
    refs = [Ref(EmailClaim, claim.id), Ref(Challenge, challenge)]
    refs += [Ref(kind, user.id) for kind in (Credentials, User, AddressBook)]
    if user.is_admin:
        refs.append(Ref(AdminRoster, ROSTER_ID))

    def change(found: Sequence[Any]) -> Changes[User]:
        taken = found[0] is not None and found[0].is_taken(clock.now())
        if (taken or held) and not discreet:
            raise _email_taken()
        if taken:
            return _known_already(found[0], found[1], challenge, user, clock.now())
        if held:
            return Changes(replace(user, version=1))
        if wanted.first_admin and found[5] is not None:
            raise already_exists("ADMIN_EXISTS", "There is or was an administrator already.")
        enrolled = _enrolled(user, found[5:])
        return Changes(user, put=[claim, credentials, user, AddressBook(user.id), *enrolled], events=events)

    failpoint("users.register.before")
    registered = await store.transact(refs, change)
    if registered is user:
        log.info("user_registered", extra={"user_id": user.id})
    else:
        log.info("registered_again", extra={"user_id": known.user_id if known else ""})
    failpoint("users.register.after")
    return registered


async def _held_under_earlier_rules(email: str, *, store: Store) -> bool:
    """Return whether an account of an earlier version may be this address, though kept as another.

    Until its owner has proved to read the mail of the one that is kept, nobody else may register as them.
    """
    key = earlier_key(email)
    if key is None:
        return False
    claim = await store.get(EmailClaim, key)
    owner = await store.get(User, claim.user_id if claim else "usr_nobody")
    return bool(claim and claim.folding == 1 and claim.is_current and owner and not owner.email_verified)


def _known_already(
    claim: EmailClaim, found: Challenge | None, key: str, user: User, now: datetime
) -> Changes[User]:
    """The answer that a new account would get, and a mail to the owner, who may have forgotten the password.

    A former address gets no mail: it is kept for the account that had it, to undo the change.
    """
    answer = replace(user, version=1)
    if not claim.is_current or key != challenge_id(Purpose.REGISTRATION, claim.user_id):
        return Changes(answer)  # the latter: registered this very moment, they will remember
    challenge = found or Challenge(key, claim.user_id, claim.id, now)
    asked = challenge.ask(Purpose.REGISTRATION, claim.id, now)
    told = UserChallenged(user_id=claim.user_id, purpose="PASSWORD_RESET", occasion="REGISTRATION")
    return Changes(answer, put=[challenge], events=[told] if asked else [])


def _enrolled(user: User, rosters: Sequence[AdminRoster | None]) -> list[AdminRoster]:
    enrolled = [roster or AdminRoster() for roster in rosters]
    for roster in enrolled:
        roster.record(user)
    return enrolled


async def ensure_admin(email: str, password: str, *, store: Store, hasher: Hasher, clock: Clock) -> None:
    """Make the first administrator, if there has never been one; an account that has this e-mail is left as it is.

    The roster of administrators is the mark: it is made with the first one and never removed, so that neither another
    address nor a deleted account brings back the administrator with the password that lies in the settings.
    """
    if await store.get(AdminRoster, ROSTER_ID) is not None:
        log.warning("ADMIN_PASSWORD is not needed any more: remove it from where it lies")
        return
    try:
        wanted = Registration(email, password, "Administrator", roles=(ADMIN, CUSTOMER), first_admin=True)
        await register(wanted, store=store, hasher=hasher, clock=clock)
    except ServiceError as error:
        if error.reason not in ("EMAIL_TAKEN", "ADMIN_EXISTS"):  # by another process that starts right now
            raise
    if await store.get(AdminRoster, ROSTER_ID) is None:
        log.warning("the account of ADMIN_EMAIL has not the role admin")


async def get_user(user_id: str, caller: Identity, *, store: Store) -> User:
    """A profile, for its owner and admins. Raises NOT_FOUND (USER_NOT_FOUND)."""
    require_self_or_admin(caller, user_id)
    return _existing(await store.get(User, user_id))


async def list_users(limit: int, cursor: str, caller: Identity, *, store: Store) -> Page[User]:
    """Accounts, newest first, for admins."""
    require_admin(caller)
    return await newest_users(store, page_limit(limit), cursor or None)


async def update_user(
    user_id: str,
    wanted: ProfileChange,
    caller: Identity,
    *,
    store: Store,
    throttle: Throttle,
    proof: Proof,
    clock: Clock,
) -> User:
    """Change the name where given; have a code mailed to another e-mail where given, which counts once it comes back.

    The present e-mail cancels a change that waits for its code.

    Raises:
        Unauthenticated: REAUTHENTICATION_REQUIRED, INVALID_CREDENTIALS, for another e-mail.
        Aborted: VERSION_MISMATCH.
        AlreadyExists: EMAIL_TAKEN.
        InvalidArgument: INVALID_ARGUMENT.
        ResourceExhausted: TOO_MANY_ATTEMPTS, for the sixth e-mail in 15 minutes or the fourth mail.
    """
    seen = await get_user(user_id, caller, store=store)
    seen.require_version(wanted.version)
    name = seen.name if wanted.name is None else clean_name(wanted.name)
    email = seen.email if wanted.email is None else normal_email(wanted.email)
    cancels = wanted.email is not None and email == seen.email and seen.pending_until is not None
    if (name, email) == (seen.name, seen.email) and not cancels:
        return seen
    if email != seen.email:
        await proof.reauthenticate(caller, wanted.current_password)
        await throttle.move(user_id)

    def change(found: Sequence[Any]) -> Changes[User]:
        user, challenge, claim = _existing(found[0]), found[1], found[2]
        user.require_version(wanted.version)
        if wanted.name is not None:
            user.rename(name, clock.now())
        if cancels:
            user.expect_email(None, clock.now())
            return Changes(user, put=[user], delete=[challenge] if challenge else [])
        if email == seen.email:
            return Changes(user, put=[user])
        user.require_email(seen.email)
        if claim and claim.is_taken(clock.now()) and claim.user_id != user_id:
            raise _email_taken()
        challenge = challenge or Challenge(key, user_id, claim_id, clock.now())
        if not challenge.ask(Purpose.EMAIL_CHANGE, claim_id, clock.now(), address=email):
            raise exhausted("TOO_MANY_ATTEMPTS", "The mail was sent several times; look for it.", 900)
        user.expect_email(challenge.expires_at, clock.now())
        return Changes(user, put=[user, challenge], events=[UserEmailChangeRequested(user_id=user_id)])

    key, claim_id = challenge_id(Purpose.EMAIL_CHANGE, user_id), email_key(email)
    failpoint("users.update.before")
    user = await store.transact([Ref(User, user_id), Ref(Challenge, key), Ref(EmailClaim, claim_id)], change)
    failpoint("users.update.after")
    return user


async def set_roles(
    user_id: str,
    roles: Sequence[str],
    caller: Identity,
    *,
    current_password: str = "",
    store: Store,
    proof: Proof,
    clock: Clock,
) -> User:
    """Replace the roles of an account, for admins; access tokens and mailed codes from before are void.

    Raises:
        Unauthenticated: REAUTHENTICATION_REQUIRED, INVALID_CREDENTIALS, about the admin who calls.
        FailedPrecondition: LAST_ADMIN.
    """
    require_admin(caller)
    wanted = known_roles(roles)
    await proof.reauthenticate(caller, current_password)

    def change(found: Sequence[Any]) -> Changes[User]:
        user, roster = _existing(found[0]), found[1] or AdminRoster()
        user.assign(wanted, clock.now())
        roster.record(user)
        put, delete = AccountAccess.of(found[2:]).end(user_id, clock.now(), keep_sessions=True)
        return Changes(user, put=[user, roster, *put], delete=delete)

    refs = [Ref(User, user_id), Ref(AdminRoster, ROSTER_ID), *AccountAccess.refs(user_id)]
    user = await store.transact(refs, change)
    log.info("roles_set", extra={"user_id": user_id, "roles": user.roles, "by": caller.subject})
    return user


async def export_user(
    user_id: str, caller: Identity, *, current_password: str = "", store: Store, proof: Proof
) -> tuple[User, AddressBook]:
    """Return all that is kept here about a person.

    Raises UNAUTHENTICATED (REAUTHENTICATION_REQUIRED, INVALID_CREDENTIALS), NOT_FOUND (USER_NOT_FOUND).
    """
    user = await get_user(user_id, caller, store=store)
    await proof.reauthenticate(caller, current_password)
    return user, await store.get(AddressBook, user_id) or AddressBook(user_id)


async def delete_user(
    user_id: str, caller: Identity, *, current_password: str = "", store: Store, proof: Proof, clock: Clock
) -> None:
    """Delete all that names the person, digests of the addresses too; all access ends.

    Raises:
        Unauthenticated: REAUTHENTICATION_REQUIRED, INVALID_CREDENTIALS.
        FailedPrecondition: LAST_ADMIN.
    """
    seen = await get_user(user_id, caller, store=store)
    await proof.reauthenticate(caller, current_password)

    def change(found: Sequence[Any]) -> Changes[None]:
        user, own, roster = _existing(found[0]), found[1 : -(len(access) + 1)], found[-(len(access) + 1)]
        user.require_emails(seen)  # the claims at hand are those of the addresses that were seen
        put, delete = AccountAccess.of(found[-len(access) :]).erase(user_id, clock.now())
        if roster and user.is_admin:
            roster.strike(user.id)
            put.append(roster)
        # A former address may be somebody else's by now.
        own = [each for each in own if each and getattr(each, "user_id", user_id) == user_id]
        return Changes(None, put=put, delete=[*delete, user, *own], events=user.delete())

    access = AccountAccess.refs(user_id)
    refs = [
        Ref(User, user_id),
        Ref(AddressBook, user_id),
        Ref(EmailClaim, email_key(seen.email)),
        *former_refs(seen),
        Ref(AdminRoster, ROSTER_ID),
        *access,
    ]
    failpoint("users.delete.before")
    await store.transact(refs, change)
    store.request_purge()
    log.info("user_deleted", extra={"user_id": user_id, "by": caller.subject})
    failpoint("users.delete.after")


async def contacts(user_ids: Sequence[str], admins: bool, caller: Identity, *, store: Store) -> list[User]:
    """Those of `user_ids` who have an account, and every admin if wanted; for notifications only."""
    require_service(caller, "notifications")
    if len(user_ids) > MAX_LIMIT:
        raise invalid("Too many accounts at once.", ("user_ids", f"must be at most {MAX_LIMIT}"))
    wanted = dict.fromkeys(user_ids)
    if admins:
        roster = await store.get(AdminRoster, ROSTER_ID)
        wanted.update(dict.fromkeys(roster.user_ids if roster else ()))
    return list((await store.get_many(User, list(wanted))).values())


async def mark_undeliverable(
    user_id: str, at: datetime, *, store: Store, clock: Clock, idempotency: IdempotencyRecord
) -> None:
    """The account's address bounced at `at`; nothing if it is gone or has another address since."""

    def change(found: Sequence[Any]) -> Changes[bool]:
        user: User | None = found[0]
        changed = user is not None and user.bounced(at, clock.now())
        return Changes(changed, put=[user] if user and changed else [])

    failpoint("users.bounced.before")
    bounced = await store.transact([Ref(User, user_id)], change, idempotency=idempotency)
    failpoint("users.bounced.after")
    if bounced:
        log.info("email_undeliverable", extra={"user_id": user_id})


async def rotate_keys(caller: Identity, *, keys: KeyRing) -> str:
    """Sign with a new key from now on, for admins; gives the new JWKS."""
    require_admin(caller)
    log.info("keys_rotated", extra={"by": caller.subject})
    return await keys.rotate()


def _existing(user: User | None) -> User:
    if user is None:
        raise no_such_user()
    return user


def _email_taken() -> ServiceError:
    return already_exists("EMAIL_TAKEN", "There is an account with this e-mail address already.")
