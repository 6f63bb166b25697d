"""Page sizes, which are the same for every list, and a reader of all pages of a list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count

from functions.runtime.errors import invalid
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
