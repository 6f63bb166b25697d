"""Parse the error extensions of a dead letter. Each broker writes them in its own format.

The brokers agree on three extensions (`knativeerrordest`, `knativeerrorcode`, `knativeerrordata`) but not on their
contents. According to their source code they write:

- Knative's channel-based broker (pkg/kncloudevents/event_dispatcher.go, pkg/broker/filter): the subscriber's address,
  its status, and its body in base64, cut after 1,024 characters. They come as JSON from the broker's filter, the
  component that calls the subscriber. Without that JSON the broker writes nothing at all. The filter sends none if the
  subscriber timed out, could not be reached, or sent a 2xx with a body that is no CloudEvent, and none if the Trigger
  no longer exists (404). The dead letter of a reply has the address of the broker.
  Before 1.9 (2022) the address was the filter's, which ends in /triggers/<namespace>/<name>/<uid>. Before 1.8 the body
  was plain text.
- The same broker on a channel that does not parse the filter's JSON (a KafkaChannel): the filter's address, and
  `{"errdestination": address, "errresponsebody": base64}` as data, possibly cut.
- The in-memory channel, for a Subscription without a broker: the subscriber's address; status -1 without a response.
- eventing-kafka-broker (RecordDispatcherImpl.java): the subscriber's address. If there was a response, also its status
  (a string) and up to 1,024 bytes of its body, in base64.
- eventing-rabbitmq (pkg/dispatcher): the subscriber's address and the status, -1 without a response; never a body.
- The local broker: the same as Knative's, plus the headers `kn-trigger`, `kn-broker` and `kn-attempts`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from events.catalog import CATALOG, SUBSCRIBERS, trigger_name

SILENT: Final = (
    "The broker did not say why. Knative's broker keeps silent when the subscriber was too slow, could not be reached, "
    "or answered 2xx with a body that is no CloudEvent (an event function answers 204 without a body), and when its "
    "channel still has a subscriber whose Trigger was deleted: make check-triggers finds those."
)
UNANSWERED: Final = "The subscriber did not answer."
_FILTER: Final = re.compile(r"https?://[^/]+/triggers/([a-z0-9-]+)/([a-z0-9.-]+)/[^/]+(?:/reply|/dls)?/?")
_NESTED: Final = re.compile(r'"errdestination":\s*"([^"]{1,2000})"')


class Failure(NamedTuple):
    """A failed delivery: the address, its response (status and text), and the trigger (namespace/name) if known."""

    destination: str | None
    code: int | None
    text: str
    trigger: str | None


class _Nested(msgspec.Struct):
    errdestination: str | None = None
    errresponsebody: bytes = b""


def failure_of(attributes: Mapping[str, str], namespace: str = "") -> Failure:
    """Parse the error extensions of a dead letter; `namespace` is its trigger's, or empty if no header has it."""
    destination = attributes.get("knativeerrordest") or None
    code, text = _code(attributes.get("knativeerrorcode")), _text(attributes.get("knativeerrordata", ""))
    trigger = None
    if destination and (found := _FILTER.fullmatch(destination)):
        trigger = f"{found[1]}/{found[2]}"
        destination, text = _unnested(destination, text)
    elif destination:
        trigger = _trigger_of(destination, attributes.get("type", ""), namespace)
    if code is None and not text:
        text = UNANSWERED if destination else SILENT
    return Failure(destination, code, text, trigger)


def triggers_of(event_type: str) -> list[str]:
    """Return the names of all triggers that deliver events of this type."""
    payload = CATALOG.get(event_type)
    return [trigger_name(domain) for domain in SUBSCRIBERS[payload]] if payload else []


def _trigger_of(destination: str, event_type: str, namespace: str) -> str | None:
    """Return the trigger that delivers this type to an address such as orders-events.shop.svc.cluster.local."""
    try:
        service, _, rest = (urlsplit(destination).hostname or "").partition(".")
    except ValueError:
        return None
    if service not in triggers_of(event_type):  # a trigger is named after its subscriber
        return None
    within = namespace or rest.partition(".")[0]
    return f"{within}/{service}" if within else service


def _unnested(destination: str, text: str) -> tuple[str, str]:
    """Return the subscriber's address and body from the JSON of Knative's filter, which may be cut."""
    if not text.startswith("{"):
        return destination, text
    try:
        nested = msgspec.json.decode(text, type=_Nested)
    except msgspec.DecodeError:
        found = _NESTED.search(text)
        return (found[1], "") if found else (destination, text)
    if nested.errdestination is None:
        return destination, text
    return nested.errdestination, nested.errresponsebody.decode(errors="replace")


def _code(text: str | None) -> int | None:
    """Parse an HTTP status; brokers write -1, 0 or nothing if there was no response."""
    if text and text.isascii() and text.isdigit() and len(text) <= 9:
        return int(text) or None
    return None


def _text(data: str) -> str:
    """Decode `data`: base64 that may be cut anywhere, or plain text from old brokers."""
    whole = data[: len(data) - len(data) % 4] if len(data) % 4 and "=" not in data else data
    try:
        raw = base64.b64decode(whole, validate=True)
    except binascii.Error:
        return data
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        # UTF-8 that ends within a character is base64 that was cut. Otherwise it is plain text or binary data.
        cut = error.end == len(raw) and error.reason == "unexpected end of data"
        return raw[: error.start].decode() if cut else _plain_or_binary(data, raw)


def _plain_or_binary(data: str, raw: bytes) -> str:
    """Return data under 64 characters unchanged, as plain text. Longer data is binary: decode it with replacements."""
    return data if len(data) < 64 else raw.decode(errors="replace")
