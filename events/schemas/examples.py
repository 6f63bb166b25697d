"""Examples of events, generated from the JSON Schemas of their payloads."""

from __future__ import annotations

from typing import Any

MOMENT = "2030-01-01T12:00:00.000001Z"
_UUID = "0190b5a4c1de7c0f8a31d94e5b7c2f60"
_PREFIXES = {
    "order_id": "ord",
    "payment_id": "pay",
    "product_id": "prd",
    "change_id": "emc",
    "dispute_id": "dsp",
    "product_ids": "prd",
    "refund_id": "ref",
    "notification_id": "ntf",
    "user_id": "usr",
}
_TEXTS = {"currency": "EUR", "reason": "OUT_OF_STOCK"}


def example(schema: dict[str, Any], definitions: dict[str, Any], name: str = "") -> Any:
    """Return a value that is valid for `schema`; `name` is the name of its field."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        schema = schema["anyOf"][0]
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            parts = schema.get("properties", {})
            return {field: example(part, definitions, field) for field, part in parts.items()}
        case "array":
            return [example(schema["items"], definitions, name)]
        case "integer":
            return max(schema.get("minimum", 0), 1)
        case "boolean":
            return True
        case _:
            return _string(schema, name)


def _string(schema: dict[str, Any], name: str) -> str:
    if name.endswith("_at"):
        return MOMENT
    if name in _PREFIXES:
        return f"{_PREFIXES[name]}_{_UUID}"
    if name.endswith(("_id", "_ids")) and "pattern" in schema:
        return f"{name[:3]}_{_UUID}"
    return _TEXTS.get(name, name)
