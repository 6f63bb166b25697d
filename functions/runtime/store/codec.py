"""Between entities and bytes, the same for every adapter: JSON by msgspec, which a person can read, too."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import msgspec

from functions.runtime.store.port import Entity, EntityMapping, IndexKey

E = TypeVar("E", bound=Entity)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_keys = msgspec.json.Decoder(list[IndexKey])

encode = msgspec.json.Encoder().encode


def decoder(cls: Any) -> msgspec.json.Decoder[Any]:
    """The decoder of a class, made once."""
    found = _decoders.get(cls)
    if found is None:
        found = _decoders[cls] = msgspec.json.Decoder(cls)
    return found


def micros(at: datetime) -> int:
    """A time as whole microseconds since 1970, which sort and compare in any database."""
    return (at - _EPOCH) // _MICROSECOND


def from_micros(at: int) -> datetime:
    """The inverse of `micros`."""
    return _EPOCH + at * _MICROSECOND


def encode_keys(keys: Iterable[IndexKey]) -> bytes:
    """An entity's index entries, kept beside it: what goes is what was written, whatever the code says."""
    return encode(sorted(set(keys)))


def decode_keys(keys: bytes) -> list[IndexKey]:
    """The inverse of `encode_keys`."""
    return _keys.decode(keys) if keys != b"[]" else []


class Codec(Generic[E]):
    """A `EntityMapping` with its decoder."""

    def __init__(self, kind: EntityMapping[E]) -> None:
        self.kind = kind
        self.name = kind.name
        self._decode = decoder(kind.type).decode

    def decode(self, data: bytes) -> E:
        """A fresh entity."""
        entity: E = self._decode(data)
        return entity


class CodecRegistry:
    """The kinds of one store, by class."""

    def __init__(self, mappings: Iterable[EntityMapping[Any]]) -> None:
        self._by_type = {kind.type: Codec(kind) for kind in mappings}
        names = [codec.name for codec in self._by_type.values()]
        if len(set(names)) != len(names):
            raise ValueError(f"two kinds share a name: {sorted(names)}")
        self.by_name = {codec.name: codec for codec in self._by_type.values()}

    def of(self, cls: type[E]) -> Codec[E]:
        """Raises ValueError for a class that this store was not opened with."""
        try:
            return self._by_type[cls]
        except KeyError:
            raise ValueError(f"{cls.__name__} is not among the kinds of this store") from None
