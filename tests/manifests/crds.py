"""Checks manifests against the schemas in CustomResourceDefinitions, more strictly than an API server.

A field that the schema does not define is an error here; a server may silently drop it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator

Schemas = Mapping[tuple[str, str], Mapping[str, Any]]

_ROOT = Path(__file__).parents[2]


def folder() -> Path | None:
    """Return the folder of CRDs: SHOP_CRD_SCHEMAS or `shared/schemas` beside the repository; None if it is missing."""
    named = os.environ.get("SHOP_CRD_SCHEMAS")
    found = Path(named) if named else _ROOT.parent / "shared" / "schemas"
    return found if found.is_dir() else None


def load(where: Path) -> Schemas:
    """Return the schemas by (apiVersion, kind)."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in sorted(where.glob("*.yaml")):
        for document in yaml.load_all(path.read_text(), loader):
            if document and document["kind"] == "CustomResourceDefinition":
                spec = document["spec"]
                for version in spec["versions"]:
                    key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                    found[key] = _closed(version["schema"]["openAPIV3Schema"])
    return found


def faults(document: Mapping[str, Any], schemas: Schemas) -> Iterator[str]:
    """Yield the faults of a manifest as `name: path: message`. A kind without a schema has no faults."""
    schema = schemas.get((document["apiVersion"], document["kind"]))
    if schema is not None:
        for error in Draft7Validator(schema).iter_errors(document):
            yield f"{document['metadata']['name']}: {'.'.join(str(p) for p in error.absolute_path)}: {error.message}"


def _closed(schema: Mapping[str, Any], *, top: bool = True) -> dict[str, Any]:
    """Return the schema as plain JSON Schema that refuses unknown fields."""
    closed = {key: value for key, value in schema.items() if not key.startswith("x-") and key != "format"}
    if schema.get("x-kubernetes-int-or-string"):
        closed["type"] = ["integer", "string"]
    if "properties" in schema:
        closed["properties"] = {name: _closed(inner, top=False) for name, inner in schema["properties"].items()}
        # Knative's CRDs allow unknown fields in many places, although they define all fields there.
        closed["additionalProperties"] = False
    if top:
        known: dict[str, Any] = {name: {} for name in ("apiVersion", "kind", "metadata")}
        closed["properties"] = {**closed.get("properties", {}), **known}
    if isinstance(schema.get("items"), Mapping):
        closed["items"] = _closed(schema["items"], top=False)
    if isinstance(schema.get("additionalProperties"), Mapping):
        closed["additionalProperties"] = _closed(schema["additionalProperties"], top=False)
    return closed
