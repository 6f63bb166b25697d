"""Idempotency keys: a request that is sent again gets the first one's answer, and has no second effect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from typing import Any

from functions.runtime.formats import IDEMPOTENCY_KEY
from functions.runtime.store.port import IdempotencyRecord

KEPT = timedelta(hours=24)
_KEY = re.compile(IDEMPOTENCY_KEY)


def fingerprint(request: bytes) -> str:
    """What tells one request from another under the same key; `request` is its canonical form, without the key."""
    return sha256(request).hexdigest()


def wrong_key(key: str | None) -> Iterator[tuple[str, str]]:
    """What is wrong with a key, as violations of the field `idempotency_key`; no key at all is right."""
    if key is not None and not _KEY.fullmatch(key):
        yield "idempotency_key", "must be 1 to 255 visible ASCII characters"


def idempotency_record(
    scope: str, key: str, request_fingerprint: str, answer: type[Any]
) -> IdempotencyRecord:
    """The guard of one request: `scope` is the operation and whoever asks ("orders:usr_..."), `answer` what it gives.

    `key` has passed `wrong_key`.
    """
    return IdempotencyRecord(f"idempotency:{scope}:{key}", KEPT, request_fingerprint, answer)
