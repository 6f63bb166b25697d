"""What may change in a published schema, and what may not."""

from __future__ import annotations

from copy import deepcopy
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from events.schemas.compatibility import incompatibilities


class Price(msgspec.Struct):
    """An inner type."""

    amount: Annotated[int, Meta(ge=0)]


class Event(msgspec.Struct):
    """An event."""

    id: Annotated[str, Meta(pattern="^[a-z]+$", max_length=10)]
    price: Price
    lines: Annotated[list[Price], Meta(max_length=5)]
    labels: dict[str, str]
    note: str | None = None
    parent: Event | None = None


OLD: dict[str, Any] = msgspec.json.schema(Event)
FIELDS = ("$defs", "Event", "properties")


def changed(*path: str | int, to: Any = None, without: str = "") -> dict[str, Any]:
    """The schema with one thing put at a place, or taken from there."""
    schema = deepcopy(OLD)
    at: Any = schema
    for step in path[:-1] if not without else path:
        at = at[step]
    if without:
        del at[without]
    else:
        at[path[-1]] = to
    return schema


def test_a_schema_is_compatible_with_itself() -> None:
    assert incompatibilities(OLD, deepcopy(OLD)) == []


@pytest.mark.parametrize(
    "new",
    [
        changed(*FIELDS, "colour", to={"type": "string", "default": "red"}),
        changed("$defs", "Price", "properties", "currency", to={"type": "string", "default": "EUR"}),
        changed("$defs", "Event", "description", to="Other words."),
        changed("$defs", "Event", "title", to="Another name"),
    ],
)
def test_additions_that_may_be_absent_and_other_words_are_compatible(new: dict[str, Any]) -> None:
    assert incompatibilities(OLD, new) == []


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (changed(*FIELDS, without="note"), "$.note: is gone"),
        (changed(*FIELDS, without="id"), "$.id: is gone"),
        (changed("$defs", "Price", "properties", without="amount"), "$.lines[].amount: is gone"),
        (changed(*FIELDS, "id", "maxLength", to=9), "$.id: maxLength was 10, is 9"),
        (changed(*FIELDS, "id", "maxLength", to=11), "$.id: maxLength was 10, is 11"),
        (changed(*FIELDS, "id", without="maxLength"), "$.id: maxLength was 10, is None"),
        (changed(*FIELDS, "id", "minLength", to=1), "$.id: minLength was None, is 1"),
        (changed(*FIELDS, "id", "pattern", to="^[a-f]+$"), "$.id: pattern was"),
        (changed(*FIELDS, "id", "type", to="integer"), "$.id: type was 'string', is 'integer'"),
        (changed(*FIELDS, "lines", "maxItems", to=4), "$.lines: maxItems was 5, is 4"),
        (changed(*FIELDS, "labels", "additionalProperties", "type", to="integer"), "$.labels.*: type was"),
        (changed(*FIELDS, "note", to={"type": "string"}), "$.note"),
        (
            changed("$defs", "Price", "properties", "amount", "minimum", to=1),
            "$.lines[].amount: minimum was 0, is 1",
        ),
        (changed("$defs", "Event", "required", to=["id"]), "$.price: was required, is optional"),
        (
            changed("$defs", "Event", "required", to=[*OLD["$defs"]["Event"]["required"], "note"]),
            "$.note: was optional",
        ),
    ],
)
def test_anything_else_is_not(new: dict[str, Any], said: str) -> None:
    assert any(problem.startswith(said) for problem in incompatibilities(OLD, new))


def test_a_renamed_field_is_one_gone_and_one_that_older_events_lack() -> None:
    new = changed(*FIELDS, "total", to={"$ref": "#/$defs/Price"})
    del new["$defs"]["Event"]["properties"]["price"]
    new["$defs"]["Event"]["required"] = ["id", "total", "lines", "labels"]

    assert incompatibilities(OLD, new) == [
        "$.price: is gone, but receivers read it",
        "$.total: is new and required, but older events lack it",
    ]


def test_a_renamed_inner_type_changes_nothing_on_the_wire() -> None:
    text = msgspec.json.encode(OLD).replace(b"Price", b"Cost")

    assert incompatibilities(OLD, msgspec.json.decode(text)) == []
