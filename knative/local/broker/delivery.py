"""Interpret responses to deliveries and compute retries by the rules of knative/eventing, without I/O.

Source: pkg/kncloudevents (retries.go, event_dispatcher.go) and pkg/broker/filter.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from events.cloudevent import BATCH, BadEvent, CloudEvent, is_cloudevent, parse
from events.http_client import Response
from knative.local.broker.config import DeliverySpec
from knative.local.broker.storage import Failure
from observability.headers import retry_after

TTL: Final = "knativebrokerttl"
ARRIVAL: Final = "knativearrivaltime"
ERROR_EXTENSIONS: Final = ("knativeerrordest", "knativeerrorcode", "knativeerrordata")
DEFAULT_TTL: Final = 255
_ERROR_DATA_MAX: Final = 1024  # characters of base64
_RETRIED: Final = frozenset({404, 408, 409, 429})
_LONGEST_DELAY: Final = 86400.0
_DEAD_LETTER_DELAY: Final = 0.5
_DEAD_LETTER_LONGEST: Final = 60.0


class Delivered(NamedTuple):
    """The subscriber accepted the event, perhaps with a reply event."""

    reply: CloudEvent | None = None


class Failed(NamedTuple):
    """The subscriber did not accept the event. `retry_after` is in seconds, 0 if the response has none.

    If `explained` is true, `body` is the broker's own explanation, because the subscriber sent none.
    """

    code: int
    body: bytes
    retryable: bool = True
    retry_after: float = 0.0
    explained: bool = False


def judge(response: Response, now: float) -> Delivered | Failed:
    """Interpret a subscriber's response; `now` is Unix time."""
    status, headers, body = response
    if 200 <= status < 300:
        return _accepted(response)
    retryable = status >= 500 or status in _RETRIED
    retry_after = _retry_after(headers, now) if status in (429, 503) else 0.0
    return Failed(status, body, retryable, retry_after)


def unreachable(message: str) -> Failed:
    """Return the outcome of a request that got no response. Its code is 500, as in Knative."""
    return Failed(500, f"dispatch error: {message}".encode(), explained=True)


def delay(policy: DeliverySpec, attempts: int, retry_after: float) -> float:
    """Return the seconds to wait for the next attempt, after `attempts` (at least 1) failed attempts."""
    if policy.exponential:
        wait = policy.backoff_delay * 2.0 ** min(attempts - 1, 64)
    else:
        wait = policy.backoff_delay * (attempts - 1)
    return min(max(wait, min(retry_after, policy.retry_after_max)), _LONGEST_DELAY)


def dead_letter_delay(attempts: int) -> float:
    """Return the seconds to wait for the next request to a dead-letter sink, after `attempts` failed requests."""
    return min(_DEAD_LETTER_DELAY * 2.0 ** min(attempts - 1, 16), _DEAD_LETTER_LONGEST)


def failure(url: str, failed: Failed, attempts: int) -> Failure:
    """Return the failure to report to the dead-letter sink; the body is cut as in Knative."""
    encoded = base64.b64encode(failed.body[:_ERROR_DATA_MAX]).decode()[:_ERROR_DATA_MAX]
    return Failure(url, failed.code, encoded, attempts)


def dead_letter_attributes(attributes: Mapping[str, str], failed: Failure) -> dict[str, str]:
    """Return the event's attributes, with the three error extensions added."""
    values = (failed.dest, str(failed.code), failed.data)
    return {**attributes, **dict(zip(ERROR_EXTENSIONS, values, strict=True))}


def incoming_ttl(attributes: dict[str, str]) -> int:
    """Remove the ttl of an incoming event; return it reduced by one, or 255 if it is missing or no number."""
    text = attributes.pop(TTL, None)
    if text is None:
        return DEFAULT_TTL
    try:
        return max(0, int(text) - 1) if len(text) <= 11 else DEFAULT_TTL
    except ValueError:
        return DEFAULT_TTL


def _accepted(response: Response) -> Delivered | Failed:
    """Parse the reply event in a 200 response (data plane, Derived Events).

    A 2xx with a body that is no CloudEvent is a failure, as in Knative's filter.
    """
    if not is_cloudevent(response.headers):
        return _refused(response, "a body that is no CloudEvent") if response.body else Delivered()
    if response.status != 200:
        return Delivered()
    try:
        events = parse(response.headers, response.body)
    except BadEvent as error:
        return _refused(response, f"a body that is no valid CloudEvent ({error})")
    if len(events) != 1 or any(value.startswith(BATCH.encode()) for _, value in response.headers):
        return _refused(response, "more or less than one CloudEvent")
    return Delivered(events[0])


def _refused(response: Response, what: str) -> Failed:
    """Return a failure that says what is wrong with the response (`what`) and how to correct it.

    A common mistake is that the subscriber's framework sends a body (`OK`), although there must be none.
    """
    found = next((value for name, value in response.headers if name == b"content-type"), b"no content type")
    text = (
        f"the subscriber answered {response.status} with {what}: {found[:100].decode('latin-1')}, "
        f"{len(response.body)} bytes; the broker takes a body for a reply event, so answer 204 without a body"
    )
    return Failed(502, text.encode(), explained=True)


def _retry_after(headers: Sequence[tuple[bytes, bytes]], now: float) -> float:
    text = next((value for name, value in headers if name == b"retry-after"), b"").decode("latin-1")
    return retry_after(text, now) or 0.0
