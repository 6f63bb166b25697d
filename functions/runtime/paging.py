"""Page sizes, the same for every list."""

from __future__ import annotations

from functions.runtime.errors import invalid

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


def page_limit(limit: int) -> int:
    """`limit` as asked for, 20 for 0; raises INVALID_ARGUMENT outside 1 to 100."""
    if limit == 0:
        return DEFAULT_LIMIT
    if not 1 <= limit <= MAX_LIMIT:
        raise invalid("The page size is out of bounds.", ("limit", f"must be between 1 and {MAX_LIMIT}"))
    return limit
