"""The token with which a publisher authenticates to Knative's broker, if the broker's OIDC feature is on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from events.http_client import RequestFailed

_REREAD_SECONDS = 60.0
"""Seconds between two reads of the file. A kubelet renews a token minutes before it expires."""


class BrokerToken:
    """The token in a file, which a kubelet renews before it expires."""

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = Path(path)
        self._clock = clock
        self._read_at = float("-inf")
        self._header = b""

    def header(self) -> bytes:
        """Return the Authorization header line; reads the file at most once a minute. Raises RequestFailed."""
        now = self._clock()
        if now - self._read_at >= _REREAD_SECONDS:
            try:
                token = self._path.read_bytes().strip()
            except OSError as error:
                raise RequestFailed(f"no token in {self._path}: {error.strerror}") from None
            self._header, self._read_at = b"authorization: Bearer %b\r\n" % token, now
        return self._header


def broker_token(path: str) -> Callable[[], bytes]:
    """Return a function that returns the Authorization header line; without a path the line is empty."""
    return BrokerToken(path).header if path else bytes
