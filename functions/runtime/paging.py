"""Page sizes, the same for every list, and reading a list to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from functions.runtime.errors import invalid
from functions.runtime.store.port import E, Page

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


def page_limit(limit: int) -> int:
    """`limit` as asked for, 20 for 0; raises INVALID_ARGUMENT outside 1 to 100."""
    if limit == 0:
        return DEFAULT_LIMIT
    if not 1 <= limit <= MAX_LIMIT:
        raise invalid("The page size is out of bounds.", ("limit", f"must be between 1 and {MAX_LIMIT}"))
    return limit


async def all_pages(read: Callable[[str | None], Awaitable[Page[E]]]) -> AsyncIterator[list[E]]:
    """Yield the items of each page of a list; `read` gets the cursor of the page, None for the first."""
    page = await read(None)
    yield page.items
    while page.next_cursor is not None:
        page = await read(page.next_cursor)
        yield page.items
