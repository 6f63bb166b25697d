"""CloudEvents 1.0 over HTTP: binary, structured and batched messages in, binary and structured ones out.

Stdlib and msgspec only, and lean: the broker handles each event with it. Attribute values are strings
of CloudEvents' type system ("42", "true"); data is bytes and stays byte-exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from events.cloudevent_core import BadEvent, CloudEvent, attribute_name, is_json, validate
from events.cloudevent_json import parse_batch, parse_structured, to_structured

__all__ = [
    "BATCH",
    "STRUCTURED",
    "BadEvent",
    "CloudEvent",
    "binary_headers",
    "header_block",
    "header_value",
    "is_cloudevent",
    "is_json",
    "parse",
    "parse_batch",
    "parse_binary",
    "parse_structured",
    "to_structured",
    "validate",
]

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
Headers = Iterable[tuple[bytes, bytes]]

_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
# Printable ASCII that travels as it is; space, double quote and percent do not (HTTP binding, 3.1.3.2).
_SAFE: Final = "!#$&'()*+,/:;<=>?@[\\]^`{|}"
_CHARSETS: Final = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "iso-8859-1": "latin-1",
    "utf-16": "utf-16",
}
_names: dict[bytes, str] = {}
_wire_names: dict[str, bytes] = {}
_NAMES_KEPT: Final = 512  # names come from outside: the caches are bounded


def is_cloudevent(headers: Headers) -> bool:
    """Whether a message says that it is a CloudEvent, in whatever mode; it may still be a bad one."""
    for name, value in headers:
        if name == b"ce-specversion" or (
            name == b"content-type" and value[:23].lower() == b"application/cloudevents"
        ):
            return True
    return False


def parse(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> list[CloudEvent]:
    """Parse an HTTP message in any of the three modes; header names are lower case, as ASGI gives them.

    Raises BadEvent; for a batch, one bad event condemns all. Reason UNSUPPORTED_FORMAT: one not read here.
    """
    media = [value for name, value in headers if name == b"content-type"]
    if len(media) > 1:
        raise BadEvent("DUPLICATE_ATTRIBUTE", "Content-Type is given twice")
    if media and media[0][:23].lower() == b"application/cloudevents":
        return _parse_formatted(media[0].decode("latin-1"), body)
    return [parse_binary(headers, body)]


def parse_binary(headers: Headers, body: bytes) -> CloudEvent:
    """Parse the binary mode. A W3C traceparent header stands in for the extension where an event has none."""
    attributes: dict[str, str] = {}
    trace: dict[str, str] = {}
    for key, raw in headers:
        name = _names.get(key)
        if name is None:
            if key[:3] == b"ce-":
                name = _attribute_name(key)
            elif key == b"content-type":
                attributes["datacontenttype"] = raw.decode("latin-1")
                continue
            elif key in (b"traceparent", b"tracestate"):
                known, value = trace.get(key.decode()), raw.decode("latin-1")
                trace[key.decode()] = value if known is None else f"{known}, {value}"
                continue
            else:
                continue
        if name in attributes:
            raise BadEvent("DUPLICATE_ATTRIBUTE", f"attribute {name} is given twice")
        attributes[name] = _header_value(name, raw)
    if trace and "traceparent" not in attributes and "," not in trace.get("traceparent", ","):
        attributes.update(trace)
    validate(attributes)
    return CloudEvent(attributes, body)


def header_block(attributes: dict[str, str]) -> bytes:
    """The attributes as HTTP/1.1 header lines of the binary mode, each ended by CR LF."""
    lines: list[bytes] = []
    for name, value in attributes.items():
        wire = _wire_names.get(name) or _wire_name(name)
        text = value.encode() if name == "datacontenttype" else header_value(value)
        lines += (wire, text, b"\r\n")
    return b"".join(lines)


def header_value(value: str) -> bytes:
    """A value as the HTTP binding has it: space, quote, percent, all but printable ASCII percent-encoded."""
    if value.isascii() and value.isprintable() and " " not in value and '"' not in value and "%" not in value:
        return value.encode()
    return quote_from_bytes(value.encode(), _SAFE).encode()


def binary_headers(event: CloudEvent) -> dict[str, str]:
    """The event's headers of the binary mode for any HTTP client; the body is `event.data`."""
    return {
        ("content-type" if name == "datacontenttype" else f"ce-{name}"): (
            value if name == "datacontenttype" else header_value(value).decode()
        )
        for name, value in event.attributes.items()
    }


def _parse_formatted(content_type: str, body: bytes) -> list[CloudEvent]:
    media, _, parameters = content_type.partition(";")
    found = re.search(r'charset\s*=\s*"?([^\s;"]+)', parameters, re.IGNORECASE)
    charset = _CHARSETS.get(found[1].lower()) if found else "utf-8"
    media = media.strip().lower()
    if charset is None or media not in (STRUCTURED, BATCH, "application/cloudevents"):
        raise BadEvent("UNSUPPORTED_FORMAT", f"only {STRUCTURED} and {BATCH} are understood, in UTF-8")
    return parse_batch(body, charset) if media == BATCH else [parse_structured(body, charset)]


def _attribute_name(key: bytes) -> str:
    name = attribute_name(key[3:].decode("latin-1"))
    if name in ("data", "datacontenttype"):
        raise BadEvent("INVALID_ATTRIBUTE_NAME", f"{name} travels as the body and its Content-Type")
    if len(_names) < _NAMES_KEPT:
        _names[key] = name
    return name


def _wire_name(name: str) -> bytes:
    wire = b"content-type: " if name == "datacontenttype" else b"ce-%b: " % name.encode()
    if len(_wire_names) < _NAMES_KEPT:
        _wire_names[name] = wire
    return wire


def _header_value(name: str, raw: bytes) -> str:
    try:
        text = raw.decode()
        if "%" in text or text[:1] == '"':
            if len(text) > 1 and text[0] == text[-1] == '"':
                text = _QUOTED_PAIR.sub(r"\1", text[1:-1])
            text = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise BadEvent("INVALID_UTF8", f"the value of {name} is not UTF-8") from None
    return text
