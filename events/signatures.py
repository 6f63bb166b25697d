"""Sign events and verify signatures. A valid signature proves which service sent an event, and that it is unchanged.

The extension `signature` is a JWS with detached, unencoded payload (RFC 7515 appendix F, RFC 7797):
`<header>..<signature>` in base64url. The header is exactly `{"alg":"EdDSA","b64":false,"crit":["b64"],"kid":"..."}`;
`kid` is the id of a key (see `events.service_keys`). The signed bytes are `<header>.` followed by the payload:

- For each of `id`, `source`, `type`, `subject`, `time` and `dataschema` that the event has (the platform's events have
  all), in this order: `<name>:<length>:<value>` and a line feed. Lengths count bytes of UTF-8. `time` is written in UTC
  with six decimals of a second (`2030-01-01T12:00:00.000000Z`), since brokers shorten it.
- `data:<length>:` and the bytes of the data. Some brokers parse JSON and serialize it again. So if the signature does
  not match the received bytes, it is checked once more against the JSON without white space.

Attributes that brokers and tracers add or change are not signed: `datacontenttype`, `partitionkey`, `correlationid`,
`traceparent`, `tracestate`, `knative...`. So a signature stays valid after delivery, dead-lettering and replay.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

import msgspec

from events.service_keys import PrivateKey, PublicKey, ServiceKeys

EXTENSION: Final = "signature"
_IN_ORDER: Final = ("id", "source", "type", "subject", "time", "dataschema")
_WRITTEN: Final = len("2030-01-01T12:00:00.000000Z")
REASONS: Final = ("EVENT_UNSIGNED", "EVENT_SIGNATURE_INVALID", "EVENT_SIGNER_WRONG")
"""All values of `BadSignature.reason`."""
_SIGNATURE_BYTES: Final = 64


class BadSignature(ValueError):
    """The event has no valid signature of its source. `reason` is a stable UPPER_SNAKE code, see REASONS."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Signer:
    """Signs the events of one service. `load` returns the service's key and is called once, at the first use."""

    def __init__(self, load: Callable[[], PrivateKey]) -> None:
        self._load = load

    def sign(self, attributes: Mapping[str, str], data: bytes) -> str:
        """Return the value of the extension `signature` for an event with these attributes and this data."""
        key, header = self._ready
        return f"{header.decode()}..{_encoded(key.sign(_message(header, attributes, data)))}"

    def load(self) -> None:
        """Load the key now, so that an error shows at start."""
        _ = self._ready

    @cached_property
    def _ready(self) -> tuple[PrivateKey, bytes]:
        key = self._load()
        return key, _header(key.key_id)


class Verifier:
    """Verifies events with the keys that `load` returns; `load` is called once, at the first use.

    If `required` is false, events without a signature are accepted. This is for a migration, while old publishers do
    not sign yet.
    """

    def __init__(self, load: Callable[[], ServiceKeys], *, required: bool = True) -> None:
        self._load = load
        self._required = required

    def verify(self, attributes: Mapping[str, str], data: bytes) -> bytes:
        """Verify the event and return the data that its source signed.

        Raises BadSignature: EVENT_UNSIGNED, EVENT_SIGNATURE_INVALID, or EVENT_SIGNER_WRONG (the key is that of a
        service other than the event's source).
        """
        value = attributes.get(EXTENSION)
        if not value:
            if self._required:
                raise BadSignature("EVENT_UNSIGNED", "The event has no signature.")
            return data
        header, _, text = value.partition("..")
        key, signature = self._keys.get(header), _decoded(text)
        if key is None or signature is None:
            raise _invalid()
        if attributes.get("source") != f"/{key.service}":
            raise BadSignature("EVENT_SIGNER_WRONG", f"The event is signed by {key.service}, not by its source.")
        if key.verifies(_message(header.encode(), attributes, data), signature):
            return data
        compact = _compact(data)
        if compact == data or not key.verifies(_message(header.encode(), attributes, compact), signature):
            raise _invalid()
        return compact

    def load(self) -> None:
        """Load the keys now, so that an error shows at start."""
        _ = self._keys

    @cached_property
    def _keys(self) -> dict[str, PublicKey]:
        return {_header(kid).decode(): key for kid, key in self._load().items()}


def _message(header: bytes, attributes: Mapping[str, str], data: bytes) -> bytes:
    parts = []
    for name in _IN_ORDER:
        value = attributes.get(name)
        if value:
            text = _utc(value) if name == "time" else value
            parts.append(f"{name}:{len(text) if text.isascii() else len(text.encode())}:{text}\n")
    parts.append(f"data:{len(data)}:")
    return b"%b.%b%b" % (header, "".join(parts).encode(), data)


def _utc(time: str) -> str:
    if len(time) == _WRITTEN and time[-1] == "Z" and time[19] == ".":
        return time  # already in the form that the platform's publisher writes
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return time
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z" if moment.tzinfo else time


def _compact(data: bytes) -> bytes:
    try:
        return msgspec.json.encode(msgspec.json.decode(data))
    except (ValueError, RecursionError):
        return data


def _header(kid: str) -> bytes:
    return _encoded(b'{"alg":"EdDSA","b64":false,"crit":["b64"],"kid":"%b"}' % kid.encode()).encode()


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes | None:
    try:
        raw = base64.b64decode(f"{text}==", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == _SIGNATURE_BYTES else None


def _invalid() -> BadSignature:
    return BadSignature("EVENT_SIGNATURE_INVALID", "The event's signature is not one of its source.")
