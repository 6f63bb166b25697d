"""Use cases of accounts: registration, profiles, roles, addresses, contacts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from events.catalog import UserChallenged
from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, already_exists, invalid
from functions.runtime.identity import Identity, require_admin, require_self_or_admin, require_service
from functions.runtime.ids import new_id
from functions.runtime.paging import MAX_LIMIT, page_limit
from functions.runtime.store.port import Changes, Once, Page, Ref, Store
from functions.users.account_access import AccountAccess
from functions.users.challenge import Challenge, Purpose, challenge_id
from functions.users.domain import (
    ADMIN,
    CUSTOMER,
    AddressBook,
    AdminRoster,
    Credentials,
    EmailClaim,
    LoginAttempts,
    User,
    known_roles,
    no_such_user,
)
from functions.users.keys import KeyRing
from functions.users.passwords import Hasher
from functions.users.rules import check_password, clean_name, normal_email
from functions.users.store import ROSTER_ID, email_key, newest_users
from functions.users.throttle import Throttle
from observability.failpoints import failpoint

log = logging.getLogger("shop.users")


@dataclass(frozen=True, repr=False)
class Registration:
    """A new account."""

    email: str
    password: str
    name: str
    roles: Sequence[str] = (CUSTOMER,)


@dataclass(frozen=True, repr=False)
class ProfileChange:
    """What to change; None leaves it. `version`: the one that was read, None for whatever is stored."""

    name: str | None = None
    email: str | None = None
    version: int | None = None


async def register(
    wanted: Registration, *, discreet: bool = False, store: Store, hasher: Hasher, clock: Clock
) -> User:
    """Create an account. Raises INVALID_ARGUMENT (also WEAK_PASSWORD).

    An address that has an account raises ALREADY_EXISTS (EMAIL_TAKEN); where `discreet`, it gets the answer of a new
    one, after the same work, and its owner gets a mail: whoever asks does not learn who has an account.
    """
    email = normal_email(wanted.email)
    name = clean_name(wanted.name)
    check_password(wanted.password, email)
    claim = EmailClaim(email_key(email), new_id("usr"))
    known = await store.get(EmailClaim, claim.id)
    if known and not discreet:
        raise _email_taken()  # before the dear hash; the transaction below is what decides
    credentials = Credentials(claim.user_id, await hasher.hash(wanted.password))
    user, events = User.register(claim.user_id, email, name, wanted.roles, clock.now())
    challenge = challenge_id(Purpose.PASSWORD_RESET, known.user_id if known else user.id)
    refs = [Ref(EmailClaim, claim.id), Ref(Challenge, challenge)]
    refs += [Ref(kind, user.id) for kind in (Credentials, User, AddressBook)]
    if user.is_admin:
        refs.append(Ref(AdminRoster, ROSTER_ID))

    def change(found: Sequence[Any]) -> Changes[User]:
        if found[0] and not discreet:
            raise _email_taken()
        if found[0]:
            return _known_already(found[0], found[1], challenge, user, clock.now())
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


def _known_already(
    claim: EmailClaim, found: Challenge | None, key: str, user: User, now: datetime
) -> Changes[User]:
    """The answer that a new account would get, and a mail to the owner, who may have forgotten the password."""
    answer = replace(user, version=1)
    if key != challenge_id(Purpose.PASSWORD_RESET, claim.user_id):
        return Changes(answer)  # registered this very moment: they will remember
    challenge = found or Challenge(key, claim.user_id, claim.id, now)
    asked = challenge.ask(Purpose.PASSWORD_RESET, claim.id, now)
    told = UserChallenged(user_id=claim.user_id, purpose="PASSWORD_RESET", occasion="REGISTRATION")
    return Changes(answer, put=[challenge], events=[told] if asked else [])


def _enrolled(user: User, rosters: Sequence[AdminRoster | None]) -> list[AdminRoster]:
    enrolled = [roster or AdminRoster() for roster in rosters]
    for roster in enrolled:
        roster.record(user)
    return enrolled


async def ensure_admin(email: str, password: str, *, store: Store, hasher: Hasher, clock: Clock) -> None:
    """Make the first administrator; an account that has this e-mail is left as it is."""
    claim = await store.get(EmailClaim, email_key(normal_email(email)))
    if claim is None:
        try:
            wanted = Registration(email, password, "Administrator", roles=(ADMIN, CUSTOMER))
            await register(wanted, store=store, hasher=hasher, clock=clock)
        except ServiceError as error:
            if error.reason != "EMAIL_TAKEN":  # by another process that starts right now
                raise
        return
    user = await store.get(User, claim.user_id)
    if user and not user.is_admin:
        log.warning("the account of ADMIN_EMAIL has not the role admin", extra={"user_id": user.id})


async def get_user(user_id: str, who: Identity, *, store: Store) -> User:
    """A profile, for its owner and admins. Raises NOT_FOUND (USER_NOT_FOUND)."""
    require_self_or_admin(who, user_id)
    return _existing(await store.get(User, user_id))


async def list_users(limit: int, cursor: str, who: Identity, *, store: Store) -> Page[User]:
    """Accounts, newest first, for admins."""
    require_admin(who)
    return await newest_users(store, page_limit(limit), cursor or None)


async def update_user(
    user_id: str, wanted: ProfileChange, who: Identity, *, store: Store, throttle: Throttle, clock: Clock
) -> User:
    """Change name and e-mail where given.

    Raises ABORTED (VERSION_MISMATCH), ALREADY_EXISTS (EMAIL_TAKEN), INVALID_ARGUMENT, and for the sixth e-mail in 15
    minutes RESOURCE_EXHAUSTED (TOO_MANY_ATTEMPTS).
    """
    seen = await get_user(user_id, who, store=store)
    seen.require_version(wanted.version)
    name = seen.name if wanted.name is None else clean_name(wanted.name)
    email = seen.email if wanted.email is None else normal_email(wanted.email)
    if (name, email) == (seen.name, seen.email):
        return seen
    if email != seen.email:
        await throttle.move(user_id)
    claims = [] if email == seen.email else [Ref(EmailClaim, email_key(each)) for each in (seen.email, email)]

    def change(found: Sequence[Any]) -> Changes[User]:
        user = _existing(found[0])
        user.require_version(wanted.version)
        if wanted.name is not None:
            user.rename(name, clock.now())
        if not claims:
            return Changes(user, put=[user])
        user.require_email(seen.email)
        old, new, *rest = found[1:]
        if new:
            raise _email_taken()
        user.move_to(email, clock.now())
        put, delete = AccountAccess.of(rest).end(user_id, clock.now(), keep_sessions=True)
        claim = EmailClaim(email_key(email), user.id)
        return Changes(user, put=[user, claim, *put], delete=[*delete, *([old] if old else [])])

    access = AccountAccess.refs(user_id) if claims else []
    return await store.transact([Ref(User, user_id), *claims, *access], change)


async def set_roles(user_id: str, roles: Sequence[str], who: Identity, *, store: Store, clock: Clock) -> User:
    """Replace the roles of an account, for admins; access tokens and mailed codes from before are void.

    Raises FAILED_PRECONDITION (LAST_ADMIN).
    """
    require_admin(who)
    wanted = known_roles(roles)

    def change(found: Sequence[Any]) -> Changes[User]:
        user, roster = _existing(found[0]), found[1] or AdminRoster()
        user.assign(wanted, clock.now())
        roster.record(user)
        put, delete = AccountAccess.of(found[2:]).end(user_id, clock.now(), keep_sessions=True)
        return Changes(user, put=[user, roster, *put], delete=delete)

    refs = [Ref(User, user_id), Ref(AdminRoster, ROSTER_ID), *AccountAccess.refs(user_id)]
    user = await store.transact(refs, change)
    log.info("roles_set", extra={"user_id": user_id, "roles": user.roles, "by": who.subject})
    return user


async def delete_user(user_id: str, who: Identity, *, store: Store, clock: Clock) -> None:
    """Delete all that names the person, digests of the address too; all access ends.

    Raises FAILED_PRECONDITION (LAST_ADMIN).
    """
    seen = await get_user(user_id, who, store=store)

    def change(found: Sequence[Any]) -> Changes[None]:
        user, own, roster = _existing(found[0]), found[1:4], found[4]
        user.require_email(seen.email)  # the claim at hand is that of the address that was seen
        put, delete = AccountAccess.of(found[5:]).erase(user_id, clock.now())
        if roster and user.is_admin:
            roster.strike(user.id)
            put.append(roster)
        delete += [user, *(entity for entity in own if entity)]
        return Changes(None, put=put, delete=delete, events=user.delete())

    refs = [
        Ref(User, user_id),
        Ref(AddressBook, user_id),
        *(Ref(kind, email_key(seen.email)) for kind in (EmailClaim, LoginAttempts)),
        Ref(AdminRoster, ROSTER_ID),
        *AccountAccess.refs(user_id),
    ]
    failpoint("users.delete.before")
    await store.transact(refs, change)
    store.erased()
    log.info("user_deleted", extra={"user_id": user_id, "by": who.subject})
    failpoint("users.delete.after")


async def contacts(user_ids: Sequence[str], admins: bool, who: Identity, *, store: Store) -> list[User]:
    """Those of `user_ids` who have an account, and every admin if wanted; for notifications only."""
    require_service(who, "notifications")
    if len(user_ids) > MAX_LIMIT:
        raise invalid("Too many accounts at once.", ("user_ids", f"must be at most {MAX_LIMIT}"))
    wanted = dict.fromkeys(user_ids)
    if admins:
        roster = await store.get(AdminRoster, ROSTER_ID)
        wanted.update(dict.fromkeys(roster.user_ids if roster else ()))
    return list((await store.get_many(User, list(wanted))).values())


async def mark_undeliverable(user_id: str, at: datetime, *, store: Store, clock: Clock, once: Once) -> None:
    """The account's address bounced at `at`; nothing if it is gone or has another address since."""

    def change(found: Sequence[Any]) -> Changes[bool]:
        user: User | None = found[0]
        changed = user is not None and user.bounced(at, clock.now())
        return Changes(changed, put=[user] if user and changed else [])

    failpoint("users.bounced.before")
    bounced = await store.transact([Ref(User, user_id)], change, once=once)
    failpoint("users.bounced.after")
    if bounced:
        log.info("email_undeliverable", extra={"user_id": user_id})


async def rotate_keys(who: Identity, *, keys: KeyRing) -> str:
    """Sign with a new key from now on, for admins; gives the new JWKS."""
    require_admin(who)
    log.info("keys_rotated", extra={"by": who.subject})
    return await keys.rotate()


def _existing(user: User | None) -> User:
    if user is None:
        raise no_such_user()
    return user


def _email_taken() -> ServiceError:
    return already_exists("EMAIL_TAKEN", "There is an account with this e-mail address already.")
