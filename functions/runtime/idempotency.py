"""Idempotency keys. A request with a repeated key returns the first result and has no second effect."""

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
    """Return a digest of a request, to detect a key that is reused for another request.

    `request` is in canonical form, without the key.
    """
    return sha256(request).hexdigest()


def wrong_key(key: str | None) -> Iterator[tuple[str, str]]:
    """Yield the violations of a key, for the field `idempotency_key`. A missing key is valid."""
    if key is not None and not _KEY.fullmatch(key):
        yield "idempotency_key", "must be 1 to 255 visible ASCII characters"


def idempotency_record(scope: str, key: str, request_fingerprint: str, answer: type[Any]) -> IdempotencyRecord:
    """Make the record of one request.

    `scope` is the operation and the caller ("orders:usr_..."). `answer` is the class of the result. The caller has
    checked `key` with `wrong_key`.
    """
    return IdempotencyRecord(f"idempotency:{scope}:{key}", KEPT, request_fingerprint, answer)
