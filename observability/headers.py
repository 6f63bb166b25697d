"""Header fields as RFC 9110 has them: several lines of one field, and when to come back."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import AnyStr


def combine(lines: Iterable[tuple[AnyStr, AnyStr]], comma: AnyStr) -> dict[AnyStr, AnyStr]:
    """One value for each field: its lines in their order, joined by `comma`, as lists are defined to be.

    Two lines of a field that is no list make a value that no parser of such a field takes.
    """
    combined: dict[AnyStr, AnyStr] = {}
    for name, value in lines:
        before = combined.get(name)
        combined[name] = value if before is None else before + comma + value
    return combined


def retry_after(text: str, now: float) -> float | None:
    """The seconds that Retry-After names, as a number or as a date (`now` is Unix time); None for neither."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None
