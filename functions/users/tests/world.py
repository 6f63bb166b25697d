"""A users service for unit tests: real collaborators over memory, a clock that stands, hashes that cost nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import jwt

from functions.runtime.clock import ManualClock
from functions.runtime.identity import ADMIN, CUSTOMER, Identity
from functions.runtime.key_set import KeySetCache
from functions.runtime.store.memory import MemoryStore
from functions.runtime.store.port import Store
from functions.runtime.tokens import JwtVerifier
from functions.users import email_change, recovery, service, sessions
from functions.users.challenge import Purpose
from functions.users.devices import Devices
from functions.users.domain import User
from functions.users.keys import KeyRing
from functions.users.passwords import Hasher
from functions.users.proof import LoginAttempt, Proof
from functions.users.store import MAPPINGS
from functions.users.throttle import Limits, Throttle
from functions.users.tokens import AccessTokens, Tokens

PASSWORD = "a horse, a kingdom"
ISSUER, AUDIENCE = "https://shop.test", "shop-test"


def cheap_hasher(*, time_cost: int = 1, concurrency: int = 2, queue: int = 100) -> Hasher:
    """argon2id at its least."""
    return Hasher(time_cost=time_cost, memory_kib=8, concurrency=concurrency, queue=queue)


class World:
    """The use cases with their collaborators filled in; every change runs twice, as after a lost race."""

    def __init__(
        self, store: Store | None = None, hasher: Hasher | None = None, limits: Limits | None = None
    ) -> None:
        self.clock = ManualClock()
        self.memory = MemoryStore(MAPPINGS, self.clock, lost_races=1)
        self.store: Store = store or self.memory
        self.hasher = hasher or cheap_hasher()
        self.restart()
        self.limits = limits or Limits(failures_per_address=20, failures_per_account=15)
        self.throttle = Throttle(self.store, self.clock, self.limits)
        self.devices = Devices(self.store, self.clock)
        self.proof = self.new_proof(self.hasher)

    def restart(self) -> None:
        """Forget the keys, as a process that starts."""
        self.keys = KeyRing(self.store, self.clock)
        self.tokens = AccessTokens(self.keys, ISSUER, AUDIENCE, self.clock)

    def new_proof(self, hasher: Hasher) -> Proof:
        """As of a process that starts now."""
        throttle = Throttle(self.store, self.clock, self.limits)
        return Proof(self.store, hasher, throttle, Devices(self.store, self.clock), self.clock)

    def new_verifier(self) -> JwtVerifier:
        """As of another service, which knows nothing but the published keys."""
        return JwtVerifier(KeySetCache(self.keys.key_set, self.clock), None, ISSUER, AUDIENCE, self.clock)

    async def register(
        self,
        email: str = "ada@example.com",
        *,
        password: str = PASSWORD,
        name: str = "Ada",
        discreet: bool = False,
        address: str = "",
    ) -> User:
        """An account."""
        wanted = service.Registration(email, password, name, client_address=address)
        return await service.register(
            wanted,
            discreet=discreet,
            store=self.store,
            hasher=self.hasher,
            throttle=self.throttle,
            clock=self.clock,
        )

    async def register_admin(self, email: str = "root@example.com") -> User:
        """An account with the role admin."""
        wanted = service.Registration(email, PASSWORD, "Root", roles=(ADMIN, CUSTOMER))
        return await service.register(wanted, store=self.store, hasher=self.hasher, clock=self.clock)

    async def login(
        self,
        email: str = "ada@example.com",
        password: str = PASSWORD,
        address: str = "",
        device_token: str = "",
    ) -> Tokens:
        """A session."""
        return await sessions.login(
            LoginAttempt(email, password, address, device_token),
            store=self.store,
            proof=self.proof,
            tokens=self.tokens,
            devices=self.devices,
            clock=self.clock,
        )

    async def refresh(self, token: str) -> Tokens:
        """The next tokens."""
        return await sessions.refresh(token, store=self.store, tokens=self.tokens, clock=self.clock)

    async def change_password(self, user: User, current: str, new: str) -> None:
        """By the person themselves."""
        await sessions.change_password(
            user.id,
            current,
            new,
            me(user),
            store=self.store,
            hasher=self.hasher,
            proof=self.proof,
            clock=self.clock,
        )

    async def forget_password(self, email: str = "ada@example.com", address: str = "") -> None:
        """Somebody asks for a new password."""
        await recovery.request_reset(
            email, address, store=self.store, throttle=self.throttle, clock=self.clock
        )

    async def reset_password(self, token: str, new: str) -> None:
        """Somebody has a mailed token."""
        await recovery.reset_password(token, new, store=self.store, hasher=self.hasher, clock=self.clock)

    async def mailed(self, user: User, purpose: Purpose = Purpose.PASSWORD_RESET) -> str:
        """The token in the mail that goes out now."""
        caller = service_named("notifications")
        return (await self.issue(user, purpose, caller=caller)).token

    async def issue(
        self, user: User, purpose: Purpose, change_id: str = "", *, caller: Identity | None = None
    ) -> recovery.MailedCode:
        """The token in the mail that goes out now, and where it goes."""
        caller = caller or service_named("notifications")
        return await recovery.issue(user.id, purpose, change_id, caller, store=self.store, clock=self.clock)

    async def move(self, user: User, email: str) -> None:
        """The person takes another address, whose mail they read."""
        await self.update(user, email=email)
        await self.confirm_email(await self.mailed(user, Purpose.EMAIL_CHANGE))

    async def confirm_email(self, token: str) -> None:
        """Somebody has the token that was mailed to the new address."""
        await email_change.confirm(token, store=self.store, clock=self.clock)

    async def undo_email(self, token: str) -> None:
        """Somebody has the token that was mailed to the former address."""
        await email_change.undo(token, store=self.store, clock=self.clock)

    async def delete(self, user: User, *, by: Identity | None = None, password: str = "") -> None:
        """By the person themselves, or somebody else."""
        await service.delete_user(
            user.id,
            by or me(user),
            current_password=password,
            store=self.store,
            proof=self.proof,
            clock=self.clock,
        )

    async def stored(self, user: User) -> User:
        """The account as it is now."""
        found = await self.store.get(User, user.id)
        assert found
        return found

    async def update(self, user: User, *, by: Identity | None = None, **wanted: Any) -> User:
        """By the person themselves, or somebody else."""
        change = service.ProfileChange(**wanted)
        return await service.update_user(
            user.id,
            change,
            by or me(user),
            store=self.store,
            throttle=self.throttle,
            proof=self.proof,
            clock=self.clock,
        )

    async def set_roles(self, user: User, *roles: str, by: User) -> User:
        """By an admin."""
        return await service.set_roles(
            user.id, roles, me(by), store=self.store, proof=self.proof, clock=self.clock
        )


def me(user: User, logged_in: datetime | None = None) -> Identity:
    """The caller that this person is, who logged in then; by default, this very moment."""
    return Identity(
        user.id, frozenset(user.roles), auth_time=logged_in.timestamp() if logged_in else float("inf")
    )


def service_named(name: str) -> Identity:
    """The caller that this service is."""
    return Identity(name, frozenset({"service"}))


def claims_of(token: str) -> dict[str, Any]:
    """What an access token says, believed as it is."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims
