"""UUIDv7 identifiers (RFC 9562). They sort by time, so an index over them grows only at its end."""

from __future__ import annotations

import re
import secrets
import threading
import time
from datetime import UTC, datetime

_ID = re.compile(r"[a-z]{3}_[0-9a-f]{32}")


def uuid7() -> str:
    """Return a new UUIDv7 in its 36-character form."""
    digits = _next()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_id(prefix: str) -> str:
    """Return `prefix` (three letters), an underscore and the 32 hexadecimal digits of a new UUIDv7."""
    return f"{prefix}_{_next()}"


def is_id(prefix: str, value: str) -> bool:
    """Return whether `value` has the form of an id with this prefix."""
    return value.startswith(prefix) and _ID.fullmatch(value) is not None


def made_at(value: str) -> datetime:
    """Return when `new_id` made this id, in UTC, to the millisecond."""
    return datetime.fromtimestamp(int(value[4:16], 16) / 1000, UTC)


class _Generator:
    """A generator of UUIDv7 values that increase strictly within a process (RFC 9562, section 6.2, method 2).

    Rows that were written in the same millisecond are therefore listed in the order of writing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millis = self._random = 0

    def next(self) -> str:
        fresh = secrets.randbits(_RANDOM_BITS)
        with self._lock:
            millis = max(time.time_ns() // 1_000_000, self._millis)  # also if the clock is set back
            if millis == self._millis:
                # A random step keeps the next id unguessable, and leaves room for a billion ids per millisecond.
                fresh = self._random + 1 + (fresh & _STEP_MASK)
            else:
                fresh &= _START_MASK
            self._millis, self._random = millis, fresh
        high, low = fresh >> 62, fresh & ((1 << 62) - 1)
        return f"{(millis << 80) | (7 << 76) | (high << 64) | (2 << 62) | low:032x}"


_RANDOM_BITS = 74
# The first id of a millisecond is in the lower half of the range, so that the following ids have room.
_START_MASK = (1 << (_RANDOM_BITS - 1)) - 1
_STEP_MASK = (1 << 43) - 1
_next = _Generator().next
