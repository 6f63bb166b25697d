"""The users service for unit tests: composed as in production, over memory, with a manual clock and cheap hashes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import jwt
import msgspec

from functions.runtime.clock import ManualClock
from functions.runtime.identity import ADMIN, CUSTOMER, Identity
from functions.runtime.key_set import KeySetCache
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import Changes, Ref, Store
from functions.runtime.tokens import JwtVerifier
from functions.users.auth.authenticator import LogIn
from functions.users.auth.challenges import Purpose
from functions.users.auth.passwords import PasswordHasher
from functions.users.auth.recovery import IssueMailedToken, MailedCode, RequestPasswordReset, ResetPassword
from functions.users.auth.tokens import SessionTokens
from functions.users.bootstrap import compose
from functions.users.domain import Address, AdminRoster, User
from functions.users.service import AddAddress, ChangePassword, DeleteUser, RegisterUser, SetRoles, UpdateUser
from functions.users.settings import Settings
from functions.users.store import MAPPINGS, ROSTER_ID

PASSWORD = "a horse, a kingdom"
ISSUER, AUDIENCE = "https://shop.test", "shop-test"


def cheap_hasher(*, time_cost: int = 1, concurrency: int = 2, queue: int = 100) -> PasswordHasher:
    """Make a hasher with argon2id's least memory."""
    return PasswordHasher(time_cost=time_cost, memory_kib=8, concurrency=concurrency, queue=queue)


class Accounts:
    """The services of the domain, and shortcuts to their use cases. Every change runs twice, as after a lost race."""

    def __init__(self, store: Store | None = None, hasher: PasswordHasher | None = None, **settings: Any) -> None:
        self.clock = ManualClock()
        self.memory = MemoryStore(MAPPINGS, self.clock, lost_races=1)
        self.store: Store = store or self.memory
        self.hasher = hasher or cheap_hasher()
        limits = {"login_failures_per_address": 20, "login_failures_per_account": 15}
        tokens = {"token_issuer": ISSUER, "token_audience": AUDIENCE}
        self.settings = Settings(**{**limits, **tokens, **settings})
        self.restart()

    def restart(self, hasher: PasswordHasher | None = None) -> None:
        """Compose the services anew, as a process does that starts."""
        hasher = hasher or self.hasher
        services = compose(self.settings, self.store, hasher, self.clock)
        self.users, self.sessions, self.recovery, self.email_changes, self.keys = services
        open_settings = msgspec.structs.replace(self.settings, registration="open")
        self.open_users = compose(open_settings, self.store, hasher, self.clock).users

    def new_verifier(self) -> JwtVerifier:
        """Make a verifier of another service, which knows only the published keys."""
        return JwtVerifier(KeySetCache(self.keys.key_set, self.clock), None, ISSUER, AUDIENCE, self.clock)

    async def register(
        self,
        email: str = "ada@example.com",
        *,
        password: str = PASSWORD,
        name: str = "Ada",
        private: bool = False,
        address: str = "",
    ) -> User:
        """Register an account; `private` as the setting REGISTRATION."""
        users = self.users if private else self.open_users
        return await users.register(RegisterUser(email, password, name, address))

    async def register_admin(self, email: str = "root@example.com") -> User:
        """Register an account and give it the role admin, without a revocation."""
        user = await self.register(email, name="Root")

        def promote(found: Any) -> Changes[User]:
            admin, roster = found[0], found[1] or AdminRoster()
            admin.assign_roles(frozenset({ADMIN, CUSTOMER}), self.clock.now())
            roster.record(admin)
            return Changes(admin, put=[admin, roster])

        return await self.store.transact([Ref(User, user.id), Ref(AdminRoster, ROSTER_ID)], promote)

    async def login(
        self,
        email: str = "ada@example.com",
        password: str = PASSWORD,
        address: str = "",
        device_token: str = "",
    ) -> SessionTokens:
        """Start a session."""
        return await self.sessions.login(LogIn(email, password, address, device_token))

    async def refresh(self, token: str) -> SessionTokens:
        """Exchange a refresh token."""
        return await self.sessions.refresh(token)

    async def logout(self, tokens: SessionTokens) -> None:
        """End a session."""
        await self.sessions.logout(tokens.refresh_token)

    async def change_password(self, user: User, current: str, new: str) -> None:
        """Change the password as the account's owner."""
        await self.users.change_password(ChangePassword(user.id, current, new), identity_of(user))

    async def request_reset(self, email: str = "ada@example.com", address: str = "") -> None:
        """Request a mail for a new password."""
        await self.recovery.request_password_reset(RequestPasswordReset(email, address))

    async def reset_password(self, token: str, new: str) -> None:
        """Set a new password with a mailed token."""
        await self.recovery.reset_password(ResetPassword(token, new))

    async def request_verification(self, user: User) -> None:
        """Request a mail that verifies the address, as the account's owner."""
        await self.recovery.request_verification(user.id, identity_of(user))

    async def issue(
        self, user: User, purpose: Purpose, change_id: str = "", *, caller: Identity | None = None
    ) -> MailedCode:
        """Issue a token for a mail as notifications does, or as another caller."""
        command = IssueMailedToken(user.id, purpose, change_id)
        return await self.recovery.issue_mailed_token(command, caller or service_named("notifications"))

    async def mailed_token(self, user: User, purpose: Purpose = Purpose.PASSWORD_RESET) -> str:
        """Issue a token for a mail, and return its text."""
        return (await self.issue(user, purpose)).token

    async def change_email(self, user: User, email: str) -> None:
        """Change the address as the account's owner, and confirm it."""
        await self.update(user, email=email)
        await self.email_changes.confirm(await self.mailed_token(user, Purpose.EMAIL_CHANGE))

    async def update(self, user: User, *, by: Identity | None = None, **changes: Any) -> User:
        """Change the profile as the account's owner, or as another caller."""
        return await self.users.update(UpdateUser(user.id, **changes), by or identity_of(user))

    async def add_address(self, user: User, address: Address) -> Address:
        """Store an address as the account's owner."""
        return await self.users.add_address(AddAddress(user.id, address), identity_of(user))

    async def delete(self, user: User, *, by: Identity | None = None, password: str = "") -> None:
        """Delete the account as its owner, or as another caller."""
        await self.users.delete(DeleteUser(user.id, password), by or identity_of(user))

    async def set_roles(self, user: User, *roles: str, by: User) -> User:
        """Replace the roles as an admin."""
        return await self.users.set_roles(SetRoles(user.id, roles), identity_of(by))

    async def stored(self, user: User) -> User:
        """Read the account from the store."""
        found = await self.store.get(User, user.id)
        assert found
        return found


def identity_of(user: User, logged_in: datetime | None = None) -> Identity:
    """Return the identity of this person, who logged in at that time; by default, just now."""
    return Identity(user.id, frozenset(user.roles), auth_time=logged_in.timestamp() if logged_in else float("inf"))


def service_named(name: str) -> Identity:
    """Return the identity of this service."""
    return Identity(name, frozenset({"service"}))


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of an access token without verifying it."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims
