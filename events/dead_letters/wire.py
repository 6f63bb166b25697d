"""Parse the requests of the dead-letter API and build its responses."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from events.asgi import Problem, Scope, header
from events.cloudevent import CloudEvent, to_structured
from events.dead_letters.failure import failure_of, triggers_of
from events.dead_letters.store import STATUSES, Entry, Origin

_TYPE: Final = re.compile(r"[\x21-\x7e]{1,256}")


def checked_type(text: str | None) -> str | None:
    """Return the event type that the query asks for, or None for all types. Raises Problem (400)."""
    if text and not _TYPE.fullmatch(text):
        raise Problem(400, "INVALID_TYPE", "type is an event type")
    return text or None


def checked_status(given: Mapping[str, str]) -> str:
    """Return the requested status; the default is pending. Raises Problem (400)."""
    status = given.get("status", "pending")
    if status not in STATUSES:
        raise Problem(400, "INVALID_STATUS", f"status is one of {', '.join(STATUSES)}")
    return status


def origin(scope: Scope, event: CloudEvent) -> Origin:
    """Return the origin of a dead letter, from the local broker's headers or else from the event's extensions."""
    trigger = header(scope, b"kn-trigger") or failure_of(event.attributes, header(scope, b"kn-namespace")[:63]).trigger
    return Origin(trigger or None, header(scope, b"kn-broker") or None, _number(header(scope, b"kn-attempts")[:9]))


def encode_cursor(seq: int) -> str:
    """Return the cursor for the page after the entry with this `seq`."""
    return base64.urlsafe_b64encode(str(seq).encode()).decode().rstrip("=")


def decode_cursor(text: str) -> int:
    """Return the `seq` in a cursor. Raises Problem (400)."""
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if len(text) <= 32 and decoded.isdigit():
            return min(int(decoded), 2**62)
    except (binascii.Error, ValueError):
        pass
    raise Problem(400, "INVALID_CURSOR", "the cursor is not one that was given out")


def brief(entry: Entry) -> dict[str, Any]:
    """Return an entry as it appears in lists, without its event."""
    attributes = entry.event.attributes
    failure = failure_of(attributes)
    return {
        "id": entry.id,
        "status": entry.status,
        "type": entry.event.type,
        "event_id": entry.event.id,
        "source": entry.event.source,
        "subject": attributes.get("subject"),
        "correlation_id": attributes.get("correlationid"),
        "trigger": entry.trigger or failure.trigger,
        "possible_triggers": [] if entry.trigger or failure.trigger else triggers_of(entry.event.type),
        "destination": failure.destination,
        "error_code": failure.code,
        "error": failure.text,
        "failures": entry.failures,
        "attempts": entry.attempts,
        "first_failed_at": _timestamp(entry.first_at),
        "last_failed_at": _timestamp(entry.last_at),
        "replayed_at": _timestamp(entry.replayed_at),
    }


def whole(entry: Entry) -> dict[str, Any]:
    """Return an entry with its event."""
    return {**brief(entry), "event": msgspec.Raw(to_structured(entry.event))}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _timestamp(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
