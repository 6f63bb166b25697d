"""Access rules of RPCs. Each method declares one, which is checked before the use case checks ownership and state."""

from __future__ import annotations

from dataclasses import dataclass

from functions.runtime.errors import denied
from functions.runtime.identity import Identity, require_admin, require_signed_in


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
