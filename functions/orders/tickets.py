"""Stream tickets: what lets a browser's EventSource, which sends no Authorization header, follow one order once.

A ticket stands for the access token of the person who asked for it. The store keeps the token sealed by a key that only
the ticket has, under a digest: neither can be learned from it. All that is checked of a token is checked when the
ticket is redeemed and while the stream lasts, as if the token had been sent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from functions.orders.store import Orders, StreamTicket
from functions.runtime.clock import Clock
from functions.runtime.errors import ServiceError, unauthenticated
from functions.runtime.store.port import Changes, Ref
from observability.failpoints import failpoint

TICKET_LIFETIME: Final = timedelta(seconds=30)
_PREFIX: Final = "tkt_"
_ID_BYTES, _KEY_BYTES = 16, 32
_NONCE: Final = b"\0" * 12  # each key seals one text


class IssuedTicket(NamedTuple):
    """A ticket, and until when it may be redeemed."""

    ticket: str
    expires_at: datetime


async def issue_ticket(orders: Orders, clock: Clock, order_id: str, access_token: str) -> IssuedTicket:
    """Store a ticket for this order; it can be redeemed once."""
    identifier, key = secrets.token_bytes(_ID_BYTES), secrets.token_bytes(_KEY_BYTES)
    expires_at = clock.now() + TICKET_LIFETIME
    sealed = _cipher(key).encrypt(_NONCE, access_token.encode(), order_id.encode())
    stored = StreamTicket(_digest(identifier), base64.b64encode(sealed).decode(), expires_at)
    failpoint("orders.issue-ticket.before")
    await orders.store.transact([Ref(StreamTicket, stored.id)], lambda _: Changes(None, [stored]))
    failpoint("orders.issue-ticket.after")
    text = base64.urlsafe_b64encode(identifier + key).decode()
    return IssuedTicket(_PREFIX + text, expires_at)


async def redeem_ticket(orders: Orders, clock: Clock, order_id: str, ticket: str) -> str:
    """Use a ticket up; returns the access token. Raises UNAUTHENTICATED (STREAM_TICKET_INVALID)."""
    identifier, key = _parse(ticket)

    def use(found: Sequence[Any]) -> Changes[StreamTicket]:
        stored: StreamTicket | None = found[0]
        if stored is None or stored.expires_at <= clock.now():
            raise _invalid()
        return Changes(stored, delete=[stored])

    failpoint("orders.redeem-ticket.before")
    stored = await orders.store.transact([Ref(StreamTicket, _digest(identifier))], use)
    failpoint("orders.redeem-ticket.after")
    from cryptography.exceptions import InvalidTag  # as in _cipher

    try:
        token: bytes = _cipher(key).decrypt(_NONCE, base64.b64decode(stored.sealed), order_id.encode())
    except InvalidTag:  # of another order, or with a made-up key
        raise _invalid() from None
    return token.decode()


def _parse(ticket: str) -> tuple[bytes, bytes]:
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
    from cryptography.hazmat.primitives.ciphers.aead import (
        ChaCha20Poly1305,  # nothing that a start has to wait for
    )

    return ChaCha20Poly1305(key)


def _invalid() -> ServiceError:
    return unauthenticated(
        "STREAM_TICKET_INVALID", "The ticket is unknown, used up or expired: ask for another."
    )
