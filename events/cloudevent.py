"""CloudEvents 1.0 over HTTP: parses binary, structured and batched messages; writes binary and structured messages.

The broker handles each event with this module instead of the CloudEvents SDK; it needs only the standard library and
msgspec. Attribute values are strings of CloudEvents' type system ("42", "true"). Data is bytes and is never changed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
Headers = Iterable[tuple[bytes, bytes]]

_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
# Printable ASCII that is not percent-encoded; space, double quote and percent are (HTTP binding, 3.1.3.2).
_SAFE: Final = "!#$&'()*+,/:;<=>?@[\\]^`{|}"
_CHARSETS: Final = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "iso-8859-1": "latin-1",
    "utf-16": "utf-16",
}
_names: dict[bytes, str] = {}
_NAMES_KEPT: Final = 512  # bounds the cache above, because clients choose the names
_ATTRIBUTE_NAME: Final = re.compile(r"[a-z0-9]{1,64}")
# CloudEvents' String type: no control characters, no surrogates, no noncharacters.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
_lists = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


class BadEvent(ValueError):
    """The message is not a valid CloudEvent. `reason` is a stable UPPER_SNAKE code; the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CloudEvent:
    """An event: context attributes (including extensions and datacontenttype) and data (b"" if there is none)."""

    __slots__ = ("attributes", "data")

    def __init__(self, attributes: dict[str, str], data: bytes = b"") -> None:
        self.attributes = attributes
        self.data = data

    @property
    def id(self) -> str:
        return self.attributes["id"]

    @property
    def source(self) -> str:
        return self.attributes["source"]

    @property
    def type(self) -> str:
        return self.attributes["type"]


def is_json(content_type: str) -> bool:
    """Return whether a media type (with or without parameters) is JSON."""
    media = content_type.partition(";")[0].strip().lower()
    return media.endswith(("/json", "+json"))


def validate(attributes: dict[str, str]) -> None:
    """Raise BadEvent unless the attributes are valid; remove empty optional ones."""
    if attributes.get("specversion") != "1.0":
        raise _bad_version(attributes)
    for name in ("id", "source", "type"):
        if not attributes.get(name):
            raise BadEvent("MISSING_ATTRIBUTE", f"the required attribute {name} is missing or empty")
    for name in ("subject", "time", "dataschema", "datacontenttype"):
        if attributes.get(name) == "":  # an empty optional attribute counts as absent, as in Knative
            del attributes[name]
    if not "".join(attributes.values()).isprintable():
        for name, value in attributes.items():
            if _FORBIDDEN.search(value):
                raise BadEvent("INVALID_ATTRIBUTE_VALUE", f"the value of {name} holds control characters")
    _validate_formats(attributes)


def is_cloudevent(headers: Headers) -> bool:
    """Return whether a message claims to be a CloudEvent, in any mode; it may still be invalid."""
    for name, value in headers:
        if name == b"ce-specversion" or (name == b"content-type" and value[:23].lower() == b"application/cloudevents"):
            return True
    return False


def parse(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> list[CloudEvent]:
    """Parse an HTTP message in any of the three modes; header names are lower case, as in ASGI.

    One invalid event makes the whole batch invalid. Raises BadEvent; its reason is UNSUPPORTED_FORMAT for an event
    format other than JSON.
    """
    media = [value for name, value in headers if name == b"content-type"]
    if len(media) > 1:
        raise BadEvent("DUPLICATE_ATTRIBUTE", "Content-Type is given twice")
    if media and media[0][:23].lower() == b"application/cloudevents":
        return _parse_formatted(media[0].decode("latin-1"), body)
    return [parse_binary(headers, body)]


def parse_binary(headers: Headers, body: bytes) -> CloudEvent:
    """Parse a message in binary mode. A W3C traceparent header replaces a missing traceparent extension."""
    attributes: dict[str, str] = {}
    trace: dict[str, str] = {}
    name: str | None = None
    try:
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
            text = raw.decode()
            attributes[name] = _unescaped(text) if "%" in text or text[:1] == '"' else text
    except UnicodeDecodeError:
        raise BadEvent("INVALID_UTF8", f"the value of {name} is not UTF-8") from None
    if trace and "traceparent" not in attributes and "," not in trace.get("traceparent", ","):
        attributes.update(trace)
    validate(attributes)
    return CloudEvent(attributes, body)


def header_block(attributes: dict[str, str]) -> bytes:
    """Return the attributes as HTTP/1.1 header lines in binary mode; each line ends with CR LF."""
    return "".join([f"{name}: {value}\r\n" for name, value in binary_headers(attributes).items()]).encode()


def binary_headers(attributes: dict[str, str]) -> dict[str, str]:
    """Return the attributes as headers in binary mode, for any HTTP client."""
    plain = _is_plain("".join(attributes.values()))
    headers = {f"ce-{name}": value if plain else header_value(value) for name, value in attributes.items()}
    if "datacontenttype" in attributes:
        del headers["ce-datacontenttype"]
        headers["content-type"] = attributes["datacontenttype"]
    return headers


def header_value(value: str) -> str:
    """Percent-encode space, double quote, percent and everything but printable ASCII, as the HTTP binding requires."""
    return value if _is_plain(value) else quote_from_bytes(value.encode(), _SAFE)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text and '"' not in text and "%" not in text


def parse_structured(body: bytes, charset: str = "utf-8") -> CloudEvent:
    """Parse one event in the JSON format."""
    try:
        return _from_json(_objects.decode(_utf8(body, charset)))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadEvent("MALFORMED_JSON", f"the body is no JSON object: {error}") from None


def parse_batch(body: bytes, charset: str = "utf-8") -> list[CloudEvent]:
    """Parse a JSON batch; the message of a BadEvent names the index of the invalid event."""
    try:
        items = _lists.decode(_utf8(body, charset))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadEvent("MALFORMED_JSON", f"the body is no JSON array of objects: {error}") from None
    events = []
    for index, item in enumerate(items):
        try:
            events.append(_from_json(item))
        except BadEvent as error:
            raise BadEvent(error.reason, f"event {index} of the batch: {error}") from None
    return events


def to_structured(event: CloudEvent) -> bytes:
    """Return the event in the JSON format; JSON data stays unchanged, other data becomes a string or base64."""
    document: dict[str, object] = dict(event.attributes)
    if event.data:
        key, value = _json_data(event)
        document[key] = value
    return msgspec.json.encode(document)


def _parse_formatted(content_type: str, body: bytes) -> list[CloudEvent]:
    media, _, parameters = content_type.partition(";")
    found = re.search(r'charset\s*=\s*"?([^\s;"]+)', parameters, re.IGNORECASE)
    charset = _CHARSETS.get(found[1].lower()) if found else "utf-8"
    media = media.strip().lower()
    if charset is None or media not in (STRUCTURED, BATCH, "application/cloudevents"):
        raise BadEvent("UNSUPPORTED_FORMAT", f"only {STRUCTURED} and {BATCH} are understood, in UTF-8")
    return parse_batch(body, charset) if media == BATCH else [parse_structured(body, charset)]


def _attribute_name(key: bytes) -> str:
    name = _checked_name(key[3:].decode("latin-1"))
    if name in ("data", "datacontenttype"):
        raise BadEvent("INVALID_ATTRIBUTE_NAME", f"{name} travels as the body and its Content-Type")
    if len(_names) < _NAMES_KEPT:
        _names[key] = name
    return name


def _unescaped(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = _QUOTED_PAIR.sub(r"\1", text[1:-1])
    return unquote_to_bytes(text).decode()


def _json_data(event: CloudEvent) -> tuple[str, object]:
    content_type = event.attributes.get("datacontenttype", "")
    try:
        if is_json(content_type):
            msgspec.json.decode(event.data)
            event.data.decode()
            return "data", msgspec.Raw(event.data)
        if content_type.lower().startswith("text/"):
            return "data", event.data.decode()
    except (ValueError, RecursionError):
        pass  # the data does not match its content type: base64 keeps it unchanged
    return "data_base64", base64.b64encode(event.data).decode()


def _utf8(body: bytes, charset: str) -> bytes:
    """Return the body in UTF-8. Checks all of it, because raw parts (data) are not checked again."""
    try:
        text = body.decode(charset)
    except UnicodeDecodeError:
        raise BadEvent("INVALID_UTF8", f"the body is not {charset}") from None
    return body if charset == "utf-8" else text.encode()


def _from_json(document: dict[str, msgspec.Raw]) -> CloudEvent:
    data, encoded = document.pop("data", None), document.pop("data_base64", None)
    attributes: dict[str, str] = {}
    for name, raw in document.items():
        value = msgspec.json.decode(raw)
        if value is not None:
            attributes[_checked_name(name)] = _attribute_text(name, value)
    validate(attributes)
    if encoded is not None:
        return CloudEvent(attributes, _base64_data(encoded, data))
    if data is None or bytes(data) == b"null":
        return CloudEvent(attributes)
    if is_json(attributes.setdefault("datacontenttype", "application/json")):
        return CloudEvent(attributes, bytes(data))
    value = msgspec.json.decode(data)
    return CloudEvent(attributes, value.encode() if isinstance(value, str) else bytes(data))


def _attribute_text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and -(2**31) <= value < 2**31:
        return str(value)
    raise BadEvent("INVALID_ATTRIBUTE_VALUE", f"{name} is no string, boolean or 32-bit integer")


def _base64_data(encoded: msgspec.Raw, data: msgspec.Raw | None) -> bytes:
    value = msgspec.json.decode(encoded)
    if data is not None or not isinstance(value, str):
        raise BadEvent("INVALID_DATA", "data_base64 is a string, and excludes data")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise BadEvent("INVALID_DATA", "data_base64 is no base64") from None


def _checked_name(text: str) -> str:
    """Return the name if it is valid. CloudEvents recommends at most 20 characters; the limit here is 64."""
    if not _ATTRIBUTE_NAME.fullmatch(text):
        raise BadEvent("INVALID_ATTRIBUTE_NAME", f"{text[:40]!r} is no attribute name ([a-z0-9], up to 64)")
    return text


def _validate_formats(attributes: dict[str, str]) -> None:
    for name in ("source", "dataschema"):
        if name in attributes and len(attributes[name].split(None, 1)) != 1:
            raise BadEvent("INVALID_ATTRIBUTE_VALUE", f"{name} is no URI reference")
    if not attributes.get("datacontenttype", "").isascii():
        raise BadEvent("INVALID_ATTRIBUTE_VALUE", "datacontenttype is no media type")
    time = attributes.get("time")
    if time is not None:
        try:
            valid = _TIME.fullmatch(time) is not None and datetime.fromisoformat(time.upper()) is not None
        except ValueError:
            valid = False
        if not valid:
            raise BadEvent("INVALID_ATTRIBUTE_VALUE", "time is no RFC 3339 timestamp")


def _bad_version(attributes: dict[str, str]) -> BadEvent:
    if not attributes.get("specversion"):
        return BadEvent("MISSING_ATTRIBUTE", "no CloudEvent: the required attribute specversion is missing")
    return BadEvent("UNSUPPORTED_SPECVERSION", "only specversion 1.0 is understood")
