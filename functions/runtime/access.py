"""Who may call an RPC: declared for each one, enforced before the use case applies its own rule (owner, state)."""

from __future__ import annotations

from dataclasses import dataclass

from functions.runtime.errors import denied
from functions.runtime.identity import Identity, require_admin, require_signed_in


class UndeclaredRpc(RuntimeError):
    """An RPC does not say who may call it, or what it says is for none that is there; the service does not start."""


@dataclass(frozen=True)
class Access:
    """Who is let in; nobody by default. `services` names parts of the platform."""

    anonymous: bool = False
    people: bool = False
    admins: bool = False
    services: frozenset[str] = frozenset()

    def check(self, caller: Identity) -> None:
        """Raise UNAUTHENTICATED or PERMISSION_DENIED for a caller who is not let in."""
        if self.anonymous or (caller.is_service and caller.subject in self.services):
            return
        require_signed_in(caller)
        if caller.is_service or not (self.people or self.admins):
            raise denied()
        if not self.people:
            require_admin(caller)


ANYBODY = Access(anonymous=True)
"""No token is needed; one that has expired does no harm."""
SIGNED_IN = Access(people=True)
ADMINS = Access(admins=True)


def services(*names: str) -> Access:
    """Only these parts of the platform."""
    return Access(services=frozenset(names))
