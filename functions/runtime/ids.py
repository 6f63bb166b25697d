"""UUIDv7 identifiers (RFC 9562): sortable by time, so an index over them grows at its end."""

from __future__ import annotations

import re
import secrets
import time
from datetime import UTC, datetime

_ID = re.compile(r"[a-z]{3}_[0-9a-f]{32}")


def uuid7() -> str:
    """A UUIDv7 in its 36-character form."""
    digits = _uuid7()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_id(prefix: str) -> str:
    """`prefix` (three letters), an underscore and 32 hexadecimal digits of a UUIDv7."""
    return f"{prefix}_{_uuid7()}"


def is_id(prefix: str, value: str) -> bool:
    """Whether `value` has the shape of an id with this prefix."""
    return value.startswith(prefix) and _ID.fullmatch(value) is not None


def made_at(value: str) -> datetime:
    """When an id of `new_id` was made, in UTC, to the millisecond."""
    return datetime.fromtimestamp(int(value[4:16], 16) / 1000, UTC)


def _uuid7() -> str:
    millis, rand = time.time_ns() // 1_000_000, secrets.randbits(74)
    high, low = rand >> 62, rand & ((1 << 62) - 1)
    return f"{(millis << 80) | (7 << 76) | (high << 64) | (2 << 62) | low:032x}"
