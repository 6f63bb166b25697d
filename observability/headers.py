"""Read header fields (RFC 9110): repeated fields, and Retry-After."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import AnyStr


def combine(lines: Iterable[tuple[AnyStr, AnyStr]], comma: AnyStr) -> dict[AnyStr, AnyStr]:
    """Return one value for each field: its lines in order, joined by `comma`, as RFC 9110 defines lists.

    If a field that is not a list occurs twice, the combined value is not valid for that field.
    """
    combined: dict[AnyStr, AnyStr] = {}
    for name, value in lines:
        before = combined.get(name)
        combined[name] = value if before is None else before + comma + value
    return combined


def retry_after(text: str, now: float) -> float | None:
    """Return the seconds of Retry-After, from a number or a date (`now` is Unix time); None if it is neither."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None
