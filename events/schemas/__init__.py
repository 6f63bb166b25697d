"""The published schemas, generated from the catalogue: JSON Schemas (2020-12) of payloads, and an AsyncAPI document.

`python -m events.schemas` writes them next to this file; a test fails if they differ from the catalogue.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from events.catalog import CATALOG, Payload
from events.publisher import dataschema

FOLDER = Path(__file__).parent
Schema = dict[str, Any]


def json_schema(payload: type[Payload]) -> Schema:
    """Return the schema of a payload; its `$id` is the `dataschema` of the events."""
    parts: dict[str, Schema] = msgspec.json.schema(payload)["$defs"]
    own = parts.pop(payload.__name__)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": dataschema(payload.TYPE)}
    return head | own | ({"$defs": dict(sorted(parts.items()))} if parts else {})


def schema_files() -> dict[str, str]:
    """Return the text of each schema by file name."""
    return {
        f"{event_type}.json": json.dumps(json_schema(payload), indent=2, ensure_ascii=False) + "\n"
        for event_type, payload in sorted(CATALOG.items())
    }
