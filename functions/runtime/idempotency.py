"""Idempotency keys: a request that is sent again gets the first one's answer, and has no second effect."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from typing import Any

from functions.runtime.errors import invalid
from functions.runtime.store.port import Once

KEPT = timedelta(hours=24)
LONGEST_KEY = 255


def fingerprint(request: bytes) -> str:
    """What tells one request from another under the same key; `request` is its canonical form, without the key."""
    return sha256(request).hexdigest()


def idempotency(scope: str, key: str, request_fingerprint: str, answer: type[Any]) -> Once:
    """The guard of one request: `scope` is the operation and whoever asks ("orders:usr_..."), `answer` what it gives.

    Raises INVALID_ARGUMENT for a key that is not 1 to 255 printable ASCII characters.
    """
    if not (1 <= len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        raise invalid(
            "The idempotency key is not well formed.",
            ("idempotency_key", f"must be 1 to {LONGEST_KEY} printable ASCII characters"),
        )
    return Once(f"idempotency:{scope}:{key}", KEPT, request_fingerprint, answer)
