"""Conversion of money and times to and from protobuf messages."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from events.catalog import Money
from functions.runtime.errors import invalid
from proto.shop.money.v1 import money_pb2

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
