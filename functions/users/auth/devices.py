"""Device tokens, which show that somebody logged in to an account from this device before.

They follow OWASP's device cookies
(https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies): wrong passwords of strangers
delay only strangers, and not the owner. Orders are also counted by device, so a device keeps its id across accounts. A
token proves nothing else.
"""

from __future__ import annotations

import binascii
import hmac
import secrets
from base64 import b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from functions.runtime.clock import Clock
from functions.runtime.store.port import Store
from functions.users.domain import Credentials

DEVICE_TOKEN_LIFE = timedelta(days=180)
_PREFIX = "dt_"
_KEY_ID = "devices"
_ID_BYTES, _TIME_BYTES, _MAC_BYTES = 16, 8, 32
_BYTES = 16 + _ID_BYTES + _TIME_BYTES + _MAC_BYTES
_CHARS = len(_PREFIX) + _BYTES * 4 // 3


@dataclass
class DeviceKey:
    """The key that authenticates device tokens. Deleting it makes every device unknown."""

    id: str
    key: str = field(repr=False)
    version: int = 0


class KnownDevice(NamedTuple):
    """A device from which somebody logged in to the account before."""

    id: str


class DeviceTokens:
    """Issues and recognises device tokens. Nothing is stored for a device.

    A token contains the account, a random id of the device and the time of the login. Its HMAC also covers the
    generation of the credentials, which a new password changes, and the store's epoch, which a restore changes. So both
    make every device unknown.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._key = b""

    async def issue(self, credentials: Credentials, known: KnownDevice | None) -> str:
        """Return a token for the device that has just logged in. A known device keeps its id."""
        device = bytes.fromhex(known.id) if known else secrets.token_bytes(_ID_BYTES)
        at = int(self._clock.now().timestamp()).to_bytes(_TIME_BYTES)
        body = UUID(credentials.id[-32:]).bytes + device + at
        return _PREFIX + urlsafe_b64encode(body + await self._mac(body, credentials.generation)).decode("ascii")

    async def recognise(self, token: str, credentials: Credentials | None) -> KnownDevice | None:
        """Return the device if this service issued the token for this account in the last 180 days; otherwise None."""
        raw = _parse(token)
        if raw is None:
            return None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        genuine = hmac.compare_digest(mac, await self._mac(body, credentials.generation if credentials else 0))
        if not genuine or credentials is None or credentials.id[-32:] != body[:16].hex():
            return None
        age = self._clock.now().timestamp() - int.from_bytes(body[-_TIME_BYTES:])
        return KnownDevice(body[16:-_TIME_BYTES].hex()) if age < DEVICE_TOKEN_LIFE.total_seconds() else None

    async def of_any_account(self, token: str) -> KnownDevice | None:
        """Return the device if this service issued the token, for any account; otherwise None."""
        raw = _parse(token)
        owner = await self._store.get(Credentials, f"usr_{raw[:16].hex()}") if raw else None
        return await self.recognise(token, owner)

    async def _mac(self, body: bytes, generation: int) -> bytes:
        if not self._key:
            stored = await self._store.get(DeviceKey, _KEY_ID)
            if stored is None:
                fresh = DeviceKey(_KEY_ID, secrets.token_hex(32))
                stored = await self._store.update(DeviceKey, _KEY_ID, lambda known: (known or fresh, ()))
            self._key = bytes.fromhex(stored.key)
        epoch = await self._store.epoch()
        return hmac.digest(self._key, body + generation.to_bytes(8) + epoch.to_bytes(8), "sha256")


def _parse(token: str) -> bytes | None:
    """Return the decoded bytes of a device token, or None if the text does not have the form of one."""
    if len(token) != _CHARS or not token.startswith(_PREFIX) or not token.isascii():
        return None
    try:
        return b64decode(token.removeprefix(_PREFIX), altchars=b"-_", validate=True)
    except binascii.Error:
        return None
