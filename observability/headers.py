"""Header fields that come in several lines (RFC 9110, section 5.3)."""

from __future__ import annotations

from collections.abc import Iterable
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
