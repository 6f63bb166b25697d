"""Check whether a schema may replace a published one.

Senders and receivers are deployed independently, and events wait in outboxes and dead letters. So a new receiver reads
old events, and an old receiver reads new ones. Only an additional optional field is compatible in both directions; any
other change needs a new type (`...v2`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
_WORDS = frozenset({"$schema", "$id", "$defs", "title", "description", "examples"})  # they constrain nothing
_WALKED = frozenset({"$ref", "properties", "required", "items", "additionalProperties", "anyOf"})


def incompatibilities(old: Schema, new: Schema) -> list[str]:
    """Return the incompatible changes, one line each, which begins with the path of the field."""
    return list(_Comparison(old, new).compare(old, new, "$"))


class _Comparison:
    def __init__(self, old_root: Schema, new_root: Schema) -> None:
        self._old_root = old_root
        self._new_root = new_root
        # Pairs of references that were compared already, because a type may contain itself.
        self._seen: set[tuple[str, str]] = set()

    def compare(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        pair = old.get("$ref", ""), new.get("$ref", "")
        if all(pair):
            if pair in self._seen:
                return
            self._seen.add(pair)
        old, new = _resolved(old, self._old_root), _resolved(new, self._new_root)
        for word in sorted((old.keys() | new.keys()) - _WORDS - _WALKED):
            if old.get(word) != new.get(word):
                yield f"{path}: {word} was {old.get(word)!r}, is {new.get(word)!r}"
        yield from self._fields(old, new, path)
        for word, place in (("items", f"{path}[]"), ("additionalProperties", f"{path}.*")):
            yield from self._part(old.get(word), new.get(word), place)
        yield from self._choices(old.get("anyOf", []), new.get("anyOf", []), path)

    def _fields(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        needed, needs = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(before.keys() | after.keys()):
            place = f"{path}.{name}"
            if name not in after:
                yield f"{place}: is gone, but receivers read it"
            elif name not in before:
                if name in needs:
                    yield f"{place}: is new and required, but older events lack it"
            else:
                if (name in needed) != (name in needs):
                    yield f"{place}: was {_must(name in needed)}, is {_must(name in needs)}"
                yield from self.compare(before[name], after[name], place)

    def _part(self, old: Any, new: Any, place: str) -> Iterator[str]:
        if isinstance(old, dict) and isinstance(new, dict):
            yield from self.compare(old, new, place)
        elif old != new:
            yield f"{place}: was {old!r}, is {new!r}"

    def _choices(self, old: list[Schema], new: list[Schema], path: str) -> Iterator[str]:
        if len(old) != len(new):
            yield f"{path}: had {len(old)} alternatives, has {len(new)}"
            return
        for number, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from self.compare(before, after, f"{path}|{number}")


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        beside = {word: value for word, value in schema.items() if word != "$ref"}
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")] | beside
    return schema


def _must(required: bool) -> str:
    return "required" if required else "optional"
