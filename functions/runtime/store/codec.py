"""Encoding of entities as JSON with msgspec. All adapters use it."""

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
    """Return the decoder of a class. It is created once and cached."""
    found = _decoders.get(cls)
    if found is None:
        found = _decoders[cls] = msgspec.json.Decoder(cls)
    return found


def micros(at: datetime) -> int:
    """Return a time in whole microseconds since 1970, an integer that any database can compare."""
    return (at - _EPOCH) // _MICROSECOND


def from_micros(at: int) -> datetime:
    """Invert `micros`."""
    return _EPOCH + at * _MICROSECOND


def encode_keys(keys: Iterable[IndexKey]) -> bytes:
    """Encode an entity's index entries.

    They are stored with the entity, so that a later removal deletes exactly the entries that were written, even if the
    code that computes them has changed.
    """
    return encode(sorted(set(keys)))


def decode_keys(keys: bytes) -> list[IndexKey]:
    """Invert `encode_keys`."""
    return _keys.decode(keys) if keys != b"[]" else []


class Codec(Generic[E]):
    """An entity mapping with its decoder."""

    def __init__(self, mapping: EntityMapping[E]) -> None:
        self.mapping = mapping
        self.name = mapping.name
        self._decode = decoder(mapping.type).decode

    def decode(self, data: bytes) -> E:
        """Decode stored data to a new entity."""
        entity: E = self._decode(data)
        return entity


class CodecRegistry:
    """The codecs of one store, by class and by stored name."""

    def __init__(self, mappings: Iterable[EntityMapping[Any]]) -> None:
        self._by_type = {mapping.type: Codec(mapping) for mapping in mappings}
        names = [codec.name for codec in self._by_type.values()]
        if len(set(names)) != len(names):
            raise ValueError(f"two mappings share a name: {sorted(names)}")
        self.by_name = {codec.name: codec for codec in self._by_type.values()}

    def of(self, cls: type[E]) -> Codec[E]:
        """Return the codec of a class. Raises ValueError for a class that this store was not opened with."""
        try:
            return self._by_type[cls]
        except KeyError:
            raise ValueError(f"{cls.__name__} has no mapping in this store") from None
