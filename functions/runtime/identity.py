"""The caller's identity, and access rules that several services share."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

from functions.runtime.errors import denied, unauthenticated

CUSTOMER, ADMIN, SERVICE = "customer", "admin", "service"


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified caller. `subject` is a user id or a service's name.

    `token` is the raw JWT, which is forwarded to other services. `auth_time` is when the person last entered a
    password, in seconds since 1970, or 0 if the token does not have it. `device` is the id of the device that was known
    when the person logged in, or empty.
    """

    subject: str
    roles: frozenset[str] = frozenset()
    token: str = field(default="", repr=False)
    auth_time: float = 0.0
    device: str = field(default="", repr=False)

    @property
    def is_admin(self) -> bool:
        """Whether the caller has the role admin."""
        return ADMIN in self.roles

    @property
    def is_service(self) -> bool:
        """Whether the caller is a service of the platform."""
        return SERVICE in self.roles

    def is_service_named(self, name: str) -> bool:
        """Return whether the caller is the service `name`."""
        return self.is_service and self.subject == name


ANONYMOUS = Identity("")

_caller: ContextVar[Identity] = ContextVar("shop_caller", default=ANONYMOUS)


def current_caller() -> Identity:
    """Return the verified caller of the running request, or ANONYMOUS."""
    return _caller.get()


def enter(identity: Identity) -> None:
    """Set the caller for the rest of this task. Only servers call it; they run each request in its own task."""
    _caller.set(identity)


def require_signed_in(caller: Identity) -> None:
    """Raise UNAUTHENTICATED (TOKEN_MISSING) for an anonymous caller."""
    if not caller.subject:
        raise unauthenticated("TOKEN_MISSING", "A valid access token is needed.")


def require_person(caller: Identity) -> None:
    """Raise UNAUTHENTICATED for an anonymous caller, and PERMISSION_DENIED for a service."""
    require_signed_in(caller)
    if caller.is_service:
        raise denied()


def require_admin(caller: Identity) -> None:
    """Raise PERMISSION_DENIED unless the caller has the role admin."""
    require_signed_in(caller)
    if not caller.is_admin:
        raise denied("Only an administrator may do this.")


def require_service(caller: Identity, *names: str) -> None:
    """Raise PERMISSION_DENIED unless the caller is one of these services."""
    require_signed_in(caller)
    if not caller.is_service or caller.subject not in names:
        raise denied()


def require_self_or_admin(caller: Identity, user_id: str) -> None:
    """Raise PERMISSION_DENIED unless the caller is the user `user_id` or an admin."""
    require_signed_in(caller)
    if caller.is_service or (caller.subject != user_id and not caller.is_admin):
        raise denied()


class UndeclaredRpc(RuntimeError):
    """Raised at start: a method has no declared access, or access is declared for a method that does not exist."""


@dataclass(frozen=True)
class Access:
    """The callers that a method accepts, none by default. `services` are names of services of the platform."""

    anonymous: bool = False
    people: bool = False
    admins: bool = False
    services: frozenset[str] = frozenset()

    def check(self, caller: Identity) -> None:
        """Raise UNAUTHENTICATED or PERMISSION_DENIED for a caller that is not accepted."""
        if self.anonymous or (caller.is_service and caller.subject in self.services):
            return
        require_signed_in(caller)
        if caller.is_service or not (self.people or self.admins):
            raise denied()
        if not self.people:
            require_admin(caller)


ANYBODY = Access(anonymous=True)
"""A call needs no token; an expired token is ignored."""
SIGNED_IN = Access(people=True)
ADMINS = Access(admins=True)


def services(*names: str) -> Access:
    """Return access for these services of the platform only."""
    return Access(services=frozenset(names))
