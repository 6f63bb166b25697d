"""Conversion of money, times and dataclasses to and from protobuf messages."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from events.catalog import Money
from functions.runtime.errors import invalid
from proto.shop.money.v1 import money_pb2

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def money(amount: Money) -> money_pb2.Money:
    """Return an amount as a message."""
    return money_pb2.Money(amount=amount.amount, currency=amount.currency)


def timestamp(at: datetime) -> Timestamp:
    """Return a time-zone-aware time as a message, to the microsecond. This is faster than `FromDatetime`."""
    since = at - _EPOCH
    return Timestamp(seconds=since.days * 86400 + since.seconds, nanos=since.microseconds * 1000)


def seconds_since_1970(sent: Timestamp, field: str) -> float:
    """Return a time that a caller sent, in seconds since 1970. Raises INVALID_ARGUMENT, which names `field`."""
    try:
        micros: int = sent.ToMicroseconds()
    except ValueError:
        raise invalid("The time is not valid.", (field, "must lie in the years 1 to 9999")) from None
    return micros / 1_000_000


def seconds(at: float) -> Timestamp:
    """Return seconds since 1970 as a message, to the microsecond."""
    stamp = Timestamp()
    stamp.FromMicroseconds(round(at * 1_000_000))
    return stamp


def from_message(cls: type[T], message: Any) -> T:
    """Return an object of a dataclass, from the message's fields of the same names."""
    return cls(**{field.name: getattr(message, field.name) for field in fields(cls)})  # type: ignore[arg-type] # a dataclass
