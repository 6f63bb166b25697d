"""Fakes for the tests of every domain."""

from __future__ import annotations

from pathlib import Path

from events.service_keys import PrivateKey, ServiceKeys
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


def service_key_files(folder: Path, *services: str) -> dict[str, dict[str, str]]:
    """Key pairs of these services in files; the variables that name them, by service."""
    known, found = ServiceKeys({}), {}
    for service in services:
        key = PrivateKey.generate(service)
        known = known.with_key(service, key.public)
        (folder / f"{service}.pem").write_text(key.pem)
        found[service] = {
            "SERVICE_KEY_FILE": str(folder / f"{service}.pem"),
            "SERVICE_KEYS_FILE": str(folder / "service-keys.json"),
        }
    (folder / "service-keys.json").write_text(known.jwks())
    return found
