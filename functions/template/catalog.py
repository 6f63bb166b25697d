"""Edits of the event catalogue's source: adds a service's event, and removes a service's events and subscriptions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_SWEEP = "class SweepDue("
_EVENT = '''\
class {event}(Payload, frozen=True, kw_only=True):
    """A person created an entity in {name}."""

    TYPE: ClassVar[str] = "{event_type}"
    SOURCE: ClassVar[str] = "/{name}"
    SUBJECT: ClassVar[str] = "{entity}_id"
    {entity}_id: Id
    user_id: Id


'''


@dataclass(frozen=True)
class Event:
    """A payload class in the source: name, CloudEvents type and source, and lines (from 0, end exclusive)."""

    name: str
    type: str
    source: str
    lines: tuple[int, int]


def events(text: str) -> Iterator[Event]:
    """Yield the payload classes of the catalogue's source."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            constants = {
                part.target.id: part.value.value
                for part in node.body
                if isinstance(part, ast.AnnAssign)
                and isinstance(part.target, ast.Name)
                and isinstance(part.value, ast.Constant)
            }
            if {"TYPE", "SOURCE"} <= constants.keys():
                lines = (node.lineno - 1, node.end_lineno or node.lineno)
                yield Event(node.name, str(constants["TYPE"]), str(constants["SOURCE"]), lines)


def with_service(text: str, names: Mapping[str, object]) -> str:
    """Return the source with the service's event, and the service as a subscriber of UserDeleted and SweepDue."""
    event, name = str(names["event"]), str(names["name"])
    text = text.replace(_SWEEP, _EVENT.format_map(names) + _SWEEP, 1)
    subscribers = _subscribers(text)
    sweep = subscribers.pop("SweepDue")
    subscribers["UserDeleted"].append(name)
    return _rewritten(text, {**subscribers, event: [], "SweepDue": [*sweep, name]})


def without_service(text: str, name: str) -> str:
    """Return the source without the service's events, and without the service as a subscriber of other events."""
    lines = text.splitlines(keepends=True)
    own = [event for event in events(text) if event.source == f"/{name}"]
    for event in reversed(own):
        start, end = event.lines
        del lines[start : end + 2]  # including the two blank lines after it
    gone = {event.name for event in own}
    left = {
        event: [domain for domain in domains if domain != name]
        for event, domains in _subscribers(text).items()
        if event not in gone
    }
    return _rewritten("".join(lines), left)


def _table(text: str) -> ast.AnnAssign:
    return next(
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "SUBSCRIBERS"
    )


def _subscribers(text: str) -> dict[str, list[str]]:
    table = _table(text).value
    if not isinstance(table, ast.Dict):
        raise TypeError("SUBSCRIBERS is no dict any more")
    return {
        ast.unparse(key): list(ast.literal_eval(value))
        for key, value in zip(table.keys, table.values, strict=True)
        if key is not None
    }


def _rewritten(text: str, subscribers: Mapping[str, list[str]]) -> str:
    """Return the source with these subscribers, one line for each event. The formatter wraps long lines."""
    node = _table(text)
    lines = text.splitlines(keepends=True)
    rows = (f"    {event}: {_tuple(domains)},\n" for event, domains in subscribers.items())
    lines[node.lineno : (node.end_lineno or node.lineno) - 1] = rows
    return "".join(lines)


def _tuple(domains: list[str]) -> str:
    return re.sub(r",(?=\)$)", "," if len(domains) == 1 else "", str((*domains,))).replace("'", '"')
