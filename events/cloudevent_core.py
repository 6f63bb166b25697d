"""What a CloudEvent is: its class, the rules for its attributes, and the error of what is none."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

ATTRIBUTE_NAME: Final = re.compile(r"[a-z0-9]{1,64}")
# CloudEvents' String type: no control characters, no surrogates, no noncharacters.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


class BadEvent(ValueError):
    """A message that is no CloudEvent. `reason` is stable and UPPER_SNAKE, the text is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CloudEvent:
    """Context attributes (extensions and datacontenttype included) and data, b"" when there is none."""

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
    """Whether a media type (parameters allowed) is JSON."""
    media = content_type.partition(";")[0].strip().lower()
    return media.endswith(("/json", "+json"))


def attribute_name(text: str) -> str:
    """The name, checked. CloudEvents only recommends 20 characters at most; somewhere there has to be a bound."""
    if not ATTRIBUTE_NAME.fullmatch(text):
        raise BadEvent("INVALID_ATTRIBUTE_NAME", f"{text[:40]!r} is no attribute name ([a-z0-9], up to 64)")
    return text


def validate(attributes: dict[str, str]) -> None:
    """Raise BadEvent unless these are an event's attributes; empty optional ones are removed."""
    if attributes.get("specversion") != "1.0":
        raise _bad_version(attributes)
    for name in ("id", "source", "type"):
        if not attributes.get(name):
            raise BadEvent("MISSING_ATTRIBUTE", f"the required attribute {name} is missing or empty")
    for name in ("subject", "time", "dataschema", "datacontenttype"):
        if attributes.get(name) == "":  # optional ones that are empty count as absent, as in Knative
            del attributes[name]
    for name, value in attributes.items():
        if not value.isprintable() and _FORBIDDEN.search(value):
            raise BadEvent("INVALID_ATTRIBUTE_VALUE", f"the value of {name} holds control characters")
    _validate_formats(attributes)


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
