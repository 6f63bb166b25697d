"""Compile a Trigger's filters into functions of an event's attributes.

Supports `filter.attributes`, and `filters` with the dialects exact, prefix, suffix, all, any and not, as in
knative/eventing (pkg/eventfilter). If a Trigger has both, only `filters` is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

Filter = Callable[[Mapping[str, str]], bool]

_ATTRIBUTE = re.compile(r"[a-z][a-z0-9]*")  # as Knative's webhook validates it


class FilterError(ValueError):
    """A filter is invalid; the message names it and says why."""


def compile_filters(spec: Mapping[str, Any]) -> Filter | None:
    """Return the filter of a Trigger's spec, or None if all events match. Raises FilterError."""
    filters = spec.get("filters")
    if filters:
        return _all(_many("filters", filters))
    legacy = spec.get("filter")
    if not legacy:
        return None
    attributes = _attributes("filter.attributes", _mapping("filter", legacy).get("attributes") or {})
    return _legacy(attributes) if attributes else None


def event_types(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the event types that a Trigger's spec names, or nothing if it may match other types, too.

    Only `exact` filters of the type, alone or in `any`, and the type in `filter.attributes` are recognised. The spec is
    valid: `compile_filters` accepts it.
    """
    if not spec.get("filters"):
        only = ((spec.get("filter") or {}).get("attributes") or {}).get("type")
        return (only,) if only else ()
    for expression in spec["filters"]:
        exact = [inner.get("exact") or {} for inner in expression.get("any") or [expression]]
        if all("type" in attributes for attributes in exact):
            return tuple(dict.fromkeys(attributes["type"] for attributes in exact))
    return ()


def _compile(where: str, expression: object) -> Filter:
    dialects = [(name, value) for name, value in _mapping(where, expression).items() if value]
    if len(dialects) != 1:
        raise FilterError(f"{where}: one dialect is expected, found {[name for name, _ in dialects]}")
    name, value = dialects[0]
    where = f"{where}.{name}"
    if name in ("all", "any"):
        inner = _many(where, value)
        return _all(inner) if name == "all" else lambda attributes: any(passes(attributes) for passes in inner)
    if name == "not":
        negated = _compile(where, value)
        return lambda attributes: not negated(attributes)
    match = _MATCHERS.get(name)
    if match is None:
        raise FilterError(f"{where}: unknown dialect {name!r} (known: exact, prefix, suffix, all, any, not)")
    return _all([match(_canonical(name), wanted) for name, wanted in _wanted(where, value).items()])


def _many(where: str, expressions: object) -> list[Filter]:
    if not isinstance(expressions, list):
        raise FilterError(f"{where}: a list is expected")
    return [_compile(f"{where}[{index}]", expression) for index, expression in enumerate(expressions)]


def _all(filters: list[Filter]) -> Filter:
    if len(filters) == 1:
        return filters[0]
    return lambda attributes: all(passes(attributes) for passes in filters)


def _exact(attribute: str, wanted: str) -> Filter:
    return lambda attributes: attributes.get(attribute) == wanted


def _prefix(attribute: str, wanted: str) -> Filter:
    return lambda attributes: attributes.get(attribute, "").startswith(wanted)


def _suffix(attribute: str, wanted: str) -> Filter:
    return lambda attributes: attributes.get(attribute, "").endswith(wanted)


_MATCHERS: Final = {"exact": _exact, "prefix": _prefix, "suffix": _suffix}


def _legacy(attributes: Mapping[str, str]) -> Filter:
    """Return a filter for exact values, where "" matches any value that is present and not empty."""
    wanted = [(_canonical(name), value) for name, value in attributes.items()]

    def passes(event: Mapping[str, str]) -> bool:
        for name, value in wanted:
            found = event.get(name)
            if (not found) if value == "" else (found != value):
                return False
        return True

    return passes


def _canonical(attribute: str) -> str:
    # schemaurl is the name of dataschema before CloudEvents 1.0.
    return "dataschema" if attribute == "schemaurl" else attribute


def _mapping(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise FilterError(f"{where}: a mapping is expected")
    return value


def _attributes(where: str, value: object) -> dict[str, str]:
    found = {}
    items: Mapping[Any, Any] = _mapping(where, value)
    for name, wanted in items.items():
        if not isinstance(name, str) or not _ATTRIBUTE.fullmatch(name):
            raise FilterError(f"{where}: {name!r} is no attribute name")
        if not isinstance(wanted, str):
            raise FilterError(f"{where}.{name}: a string is expected (quote it in YAML)")
        found[name] = wanted
    return found


def _wanted(where: str, value: object) -> dict[str, str]:
    found = _attributes(where, value)
    if "" in found.values():
        raise FilterError(f"{where}: an empty value matches nothing")
    return found
