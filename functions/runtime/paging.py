"""Pages of lists: their sizes, their cursors, and a reader of all pages.

A cursor is an opaque, URL-safe position in one listing, and only that listing accepts it. It contains no secret and
grants no access: a forged cursor only moves within a listing that the caller may read anyway. The checksum detects
damaged cursors and cursors of other listings.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import blake2b
from itertools import count
from typing import NamedTuple

import msgspec

from functions.runtime.errors import ServiceError, invalid
from functions.runtime.store.port import E, Page

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


def page_limit(limit: int) -> int:
    """Return `limit`, or the default 20 if it is 0. Raises InvalidArgument if it is outside 1 to 100."""
    if limit == 0:
        return DEFAULT_LIMIT
    if not 1 <= limit <= MAX_LIMIT:
        raise invalid("The page size is out of bounds.", ("limit", f"must be between 1 and {MAX_LIMIT}"))
    return limit


async def all_pages(
    read: Callable[[str | None], Awaitable[Page[E]]], limit: int | None = None
) -> AsyncIterator[list[E]]:
    """Yield the items of each page of a list, up to `limit` pages if it is given.

    `read` gets the cursor of a page, or None for the first page.
    """
    cursor: str | None = None
    for number in count(1):
        page = await read(cursor)
        yield page.items
        cursor = page.next_cursor
        if cursor is None or number == limit:
            return


_CHECK = 8
_position = msgspec.json.Decoder(tuple[str, str])


class Listing(NamedTuple):
    """The listing that a cursor belongs to."""

    kind: str
    name: str
    partition: str
    descending: bool
    epoch: int = 0
    """The store's epoch. It makes cursors from before a restore invalid."""


def cursor_after(listing: Listing, sort: str, entity_id: str) -> str:
    """Return the cursor of the page that starts after the entity at (`sort`, `entity_id`)."""
    body = msgspec.json.encode((sort, entity_id))
    return urlsafe_b64encode(_check(listing, body) + body).decode().rstrip("=")


def position(listing: Listing, cursor: str) -> tuple[str, str]:
    """Return the position (sort, id) of a cursor. Raises INVALID_ARGUMENT (INVALID_CURSOR)."""
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        body = raw[_CHECK:]
        # Decoding ignores characters outside the alphabet, so the text is also compared with its canonical form.
        if raw[:_CHECK] != _check(listing, body) or urlsafe_b64encode(raw).decode().rstrip("=") != cursor:
            raise _refused()
        return _position.decode(body)
    except (binascii.Error, UnicodeError, ValueError, msgspec.MsgspecError):
        raise _refused() from None


def lower_bound(listing: Listing, cursor: str | None, since: str | None) -> tuple[str, str] | None:
    """Return the position (sort, id) after which a page begins.

    It is the position of the cursor or, without a cursor, the one just before all entities with sort key `since`.
    """
    if cursor:
        return position(listing, cursor)
    return None if since is None else (since, "")


def _refused() -> ServiceError:
    return invalid(
        "This cursor does not belong to this list.",
        ("cursor", "Use next_cursor of the previous page, or none."),
        reason="INVALID_CURSOR",
    )


def _check(listing: Listing, body: bytes) -> bytes:
    # In a store that was never restored, cursors stay compatible with releases that had no epoch.
    fields = listing[:-1] if listing.epoch == 0 else listing
    return blake2b(msgspec.json.encode((fields, body)), digest_size=_CHECK).digest()
