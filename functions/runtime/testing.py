"""Fakes for the tests of every domain."""

from __future__ import annotations

from functions.runtime.errors import unauthenticated
from functions.runtime.identity import ADMIN, CUSTOMER, SERVICE, Identity


class FakeVerifier:
    """Takes `user:<id>`, `admin:<id>` and `service:<name>` for tokens."""

    async def verify(self, token: str) -> Identity:
        """Raises TOKEN_INVALID for anything else."""
        kind, _, subject = token.partition(":")
        roles = {"user": {CUSTOMER}, "admin": {CUSTOMER, ADMIN}, "service": {SERVICE}}.get(kind)
        if roles is None or not subject:
            raise unauthenticated("TOKEN_INVALID", "The access token is not valid.")
        return Identity(subject, frozenset(roles), token)


def bearer(token: str) -> list[tuple[str, str]]:
    """Call metadata with this token."""
    return [("authorization", f"Bearer {token}")]
