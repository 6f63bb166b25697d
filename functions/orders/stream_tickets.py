"""Stream tickets, with which a browser's EventSource follows one order once. It cannot send an Authorization header.

A ticket represents the access token of the caller who requested it. The store keeps the token encrypted with a key that
only the ticket contains, under a digest of the ticket's identifier. Neither the token nor the ticket can be derived
from the stored data. The token is verified in full when the ticket is redeemed and while the stream lasts, as if the
client had sent the token itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, unauthenticated
from functions.runtime.store.port import Changes, Ref, Store
from observability.failpoints import failpoints

TICKET_LIFETIME: Final = timedelta(seconds=30)
_PREFIX: Final = "tkt_"
_ID_BYTES, _KEY_BYTES = 16, 32
_NONCE: Final = b"\0" * 12  # a constant nonce is safe, because each key encrypts only one text


@dataclass
class StreamTicket:
    """A ticket that is not redeemed yet. `id` is the digest of its identifier, `sealed` the encrypted access token."""

    id: str
    sealed: str
    expires_at: datetime
    version: int = 0


class IssuedTicket(NamedTuple):
    """A ticket and its expiry time."""

    ticket: str
    expires_at: datetime


class StreamTickets:
    """Issues stream tickets and redeems each ticket once."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(self, order_id: str, access_token: str) -> IssuedTicket:
        """Store a ticket for this order and return it."""
        identifier, key = secrets.token_bytes(_ID_BYTES), secrets.token_bytes(_KEY_BYTES)
        expires_at = self._clock.now() + TICKET_LIFETIME
        sealed = _cipher(key).encrypt(_NONCE, access_token.encode(), order_id.encode())
        stored = StreamTicket(_digest(identifier), base64.b64encode(sealed).decode(), expires_at)
        with failpoints("orders.issue-ticket"):
            await self._store.transact([Ref(StreamTicket, stored.id)], lambda _: Changes(None, [stored]))
        text = base64.urlsafe_b64encode(identifier + key).decode()
        return IssuedTicket(_PREFIX + text, expires_at)

    async def redeem(self, order_id: str, ticket: str) -> str:
        """Delete a ticket and return its access token. Raises UNAUTHENTICATED (STREAM_TICKET_INVALID)."""
        identifier, key = _parse(ticket)

        def use(found: Sequence[Any]) -> Changes[StreamTicket]:
            stored: StreamTicket | None = found[0]
            if stored is None or stored.expires_at <= self._clock.now():
                raise _invalid()
            return Changes(stored, delete=[stored])

        with failpoints("orders.redeem-ticket"):
            stored = await self._store.transact([Ref(StreamTicket, _digest(identifier))], use)
        from cryptography.exceptions import InvalidTag  # imported on first use, as in _cipher

        try:
            token: bytes = _cipher(key).decrypt(_NONCE, base64.b64decode(stored.sealed), order_id.encode())
        except InvalidTag:  # a ticket of another order, or an invented key
            raise _invalid() from None
        return token.decode()


def _parse(ticket: str) -> tuple[bytes, bytes]:
    """Return the identifier and the key of a ticket."""
    try:
        raw = base64.b64decode(ticket.removeprefix(_PREFIX), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _invalid() from None
    if not ticket.startswith(_PREFIX) or len(raw) != _ID_BYTES + _KEY_BYTES:
        raise _invalid()
    return raw[:_ID_BYTES], raw[_ID_BYTES:]


def _digest(identifier: bytes) -> str:
    return hashlib.sha256(identifier).hexdigest()


def _cipher(key: bytes) -> Any:
    # Imported on first use, because the import would delay every start.
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(key)


def _invalid() -> ServiceError:
    return unauthenticated("STREAM_TICKET_INVALID", "The ticket is unknown, used or expired: request another.")
