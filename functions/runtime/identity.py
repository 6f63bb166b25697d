"""Who calls, and the rules that are the same everywhere."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

from functions.runtime.errors import denied, unauthenticated

CUSTOMER, ADMIN, SERVICE = "customer", "admin", "service"


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified caller: `subject` is a user id or a service's name; `token` the raw JWT, to be passed on.

    `auth_time` is when the person last proved who they are, in seconds since 1970; 0 where the token does not say.
    """

    subject: str
    roles: frozenset[str] = frozenset()
    token: str = field(default="", repr=False)
    auth_time: float = 0.0

    @property
    def is_admin(self) -> bool:
        """Has the role admin."""
        return ADMIN in self.roles

    @property
    def is_service(self) -> bool:
        """Is a part of the platform, not a person."""
        return SERVICE in self.roles

    def is_service_named(self, name: str) -> bool:
        """Is this very part of the platform."""
        return self.is_service and self.subject == name


ANONYMOUS = Identity("")

_caller: ContextVar[Identity] = ContextVar("shop_caller", default=ANONYMOUS)


def current_caller() -> Identity:
    """The verified caller of the running request; ANONYMOUS where there is none."""
    return _caller.get()


def enter(identity: Identity) -> None:
    """Set the caller for the rest of this task: for doors, which own their task."""
    _caller.set(identity)


def require_signed_in(caller: Identity) -> None:
    """Raises UNAUTHENTICATED (TOKEN_MISSING) for an anonymous caller."""
    if not caller.subject:
        raise unauthenticated("TOKEN_MISSING", "A valid access token is needed.")


def require_person(caller: Identity) -> None:
    """Raise UNAUTHENTICATED for an anonymous caller, PERMISSION_DENIED for a service."""
    require_signed_in(caller)
    if caller.is_service:
        raise denied()


def require_admin(caller: Identity) -> None:
    """Raises PERMISSION_DENIED unless the caller has the role admin."""
    require_signed_in(caller)
    if not caller.is_admin:
        raise denied("Only an administrator may do this.")


def require_service(caller: Identity, *names: str) -> None:
    """Raises PERMISSION_DENIED unless the caller is one of these services."""
    require_signed_in(caller)
    if not caller.is_service or caller.subject not in names:
        raise denied()


def require_self_or_admin(caller: Identity, user_id: str) -> None:
    """Raises PERMISSION_DENIED unless the caller is that user or an admin."""
    require_signed_in(caller)
    if caller.is_service or (caller.subject != user_id and not caller.is_admin):
        raise denied()
