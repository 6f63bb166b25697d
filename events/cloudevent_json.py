"""The JSON format of CloudEvents: one event (structured mode) or an array of them (batched mode)."""

from __future__ import annotations

import base64
import binascii

import msgspec

from events.cloudevent_core import BadEvent, CloudEvent, attribute_name, is_json, validate

_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
_lists = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def parse_structured(body: bytes, charset: str = "utf-8") -> CloudEvent:
    """Parse one event of the JSON format."""
    try:
        return _from_json(_objects.decode(_utf8(body, charset)))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadEvent("MALFORMED_JSON", f"the body is no JSON object: {error}") from None


def parse_batch(body: bytes, charset: str = "utf-8") -> list[CloudEvent]:
    """Parse a JSON batch; the message of a BadEvent names the index of the bad one."""
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
    """The event in the JSON format; JSON data stays as it is, other data goes as a string or in base64."""
    document: dict[str, object] = dict(event.attributes)
    if event.data:
        key, value = _json_data(event)
        document[key] = value
    return msgspec.json.encode(document)


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
        pass  # it is not what its type says: base64 keeps it whole
    return "data_base64", base64.b64encode(event.data).decode()


def _utf8(body: bytes, charset: str) -> bytes:
    """The body in UTF-8, checked as a whole: what stays raw (data) is not looked at again."""
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
            attributes[attribute_name(name)] = _attribute_text(name, value)
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
