"""Fakes for the tests of every domain."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Final

import msgspec

from events.catalog import CATALOG, Payload
from events.service_keys import PrivateKey, ServiceKeys
from events.signatures import Signer, Verifier
from functions.runtime.app import Function
from functions.runtime.errors import unauthenticated
from functions.runtime.identity import ADMIN, CUSTOMER, SERVICE, Identity
from functions.runtime.store.codec import decoder
from functions.runtime.store.port import Store


class FakeVerifier:
    """A verifier that accepts `user:<id>`, `admin:<id>` and `service:<name>` as tokens."""

    async def verify(self, token: str) -> Identity:
        """Return the caller. Raises TOKEN_INVALID for any other token."""
        kind, _, subject = token.partition(":")
        roles = {"user": {CUSTOMER}, "admin": {CUSTOMER, ADMIN}, "service": {SERVICE}}.get(kind)
        if roles is None or not subject:
            raise unauthenticated("TOKEN_INVALID", "The access token is not valid.")
        return Identity(subject, frozenset(roles), token)


def bearer(token: str) -> list[tuple[str, str]]:
    """Return call metadata with this token."""
    return [("authorization", f"Bearer {token}")]


def service_key_files(folder: Path, *services: str) -> dict[str, dict[str, str]]:
    """Write key pairs of these services to files. Returns, by service, the variables that name the files."""
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


_SOURCES: Final = sorted({payload.SOURCE[1:] for payload in CATALOG.values() if payload.SOURCE.count("/") == 1})
KEYS: Final = {name: PrivateKey.generate(name) for name in _SOURCES}
"""A key for each service that sends events, for tests without files."""


def signer(service: str) -> Signer:
    """Return a signer that uses this service's key in KEYS."""
    return Signer(lambda: KEYS[service])


def public_keys() -> ServiceKeys:
    """Return the public keys of KEYS."""
    return reduce(lambda known, key: known.with_key(key.service, key.public), KEYS.values(), ServiceKeys({}))


def verifier(*, required: bool = True) -> Verifier:
    """Return a verifier of events that uses KEYS."""
    return Verifier(public_keys, required=required)


def signed(headers: Mapping[str, str], data: bytes, key: PrivateKey | None = None) -> dict[str, str]:
    """Return the headers of an event in binary mode, with time and signature.

    The signature is made with `key`, or by default with the key of the event's source.
    """
    headers = {"ce-time": "2030-01-01T00:00:00Z", **headers}
    attributes = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    used = key or KEYS[attributes["source"][1:]]
    return {**headers, "ce-signature": Signer(lambda: used).sign(attributes, data)}


def posted(event: Payload, event_id: str, key: PrivateKey | None = None) -> tuple[dict[str, str], bytes]:
    """Return headers and body of an event in binary mode, signed with `key` or by default with its source's key."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-type": event.TYPE,
        "ce-source": event.SOURCE,
        "ce-subject": event.subject,
        "content-type": "application/json",
    }
    data = msgspec.json.encode(event)
    return signed(headers, data, key), data


def keyed(function: Function) -> Function:
    """Make the function sign and verify events with KEYS instead of files, and return it."""
    function.signer, function.signatures = signer(function.name), verifier()
    return function


async def recorded(store: Store) -> list[Payload]:
    """Return the events in the store's outbox, decoded, oldest first."""
    rows = await store.outbox(datetime.max.replace(tzinfo=UTC), 1_000_000)
    return [decoder(CATALOG[row.type]).decode(row.data) for row in rows]
