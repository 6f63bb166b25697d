"""All failpoints, found in the sources, and the processes that reach each of them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests import architecture

ROOT = Path(__file__).parents[2]
BROKER, GATEWAY = "broker", "gateway"
_IN_BROKER = ("knative/local/broker/", "events/dead_letters/")

# Failpoints of shared files that fewer processes reach than the place of the file suggests, with the reasons.
_ONLY_IN: dict[str, Callable[[str], bool]] = {
    "rpc.stream": lambda part: part == "orders",  # the only service with a stream
    "peer.call": lambda part: part != "users",  # users calls no other service
}
SQLITE, POSTGRES, DYNAMODB = "sqlite.", "postgres.", "dynamodb."
"""The prefixes of the failpoints of the adapters; a platform runs one of them."""

_SIDES = {"failpoint": ("",), "failpoints": (".before", ".after")}
"""What each function adds to the name that it is given."""


class Point(NamedTuple):
    """A failpoint, and the place of its call in the sources."""

    name: str
    path: str
    line: int


class Shot(NamedTuple):
    """One part that is to die at one failpoint."""

    part: str
    point: str


def points(root: Path = ROOT) -> list[Point]:
    """Return every failpoint outside of tests. Raises ValueError for a name that is not a literal."""
    return [point for path in architecture.modules(root) for point in _in(root, path)]


def _in(root: Path, path: Path) -> Iterator[Point]:
    name = path.relative_to(root)
    if "tests" in name.parts or name.as_posix() == "observability/failpoints.py":
        return
    for node in ast.walk(architecture.parsed(path)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in _SIDES:
            argument = node.args[0]
            if not isinstance(argument, ast.Constant):
                raise ValueError(f"{name}:{node.lineno}: a failpoint's name must be a literal")
            for side in _SIDES[getattr(node.func, "id", "")]:
                yield Point(f"{argument.value!s}{side}", name.as_posix(), node.lineno)


def shots(found: Sequence[Point], root: Path = ROOT) -> list[Shot]:
    """Return each failpoint with each process that reaches it."""
    domains = architecture.domains(root)
    return [
        Shot(part, point.name)
        for point in found
        for part in _parts(point, domains)
        if _ONLY_IN.get(point.name.rpartition(".")[0], bool)(part)
    ]


def _parts(point: Point, domains: Sequence[str]) -> list[str]:
    if point.path.startswith(_IN_BROKER):
        return [BROKER]
    folder, _, rest = point.path.partition("/")
    inner = rest.partition("/")[0]
    if folder == GATEWAY:
        return [GATEWAY]
    if folder == "events":
        return [*domains, BROKER] if inner in ("http_client.py", "sqlite.py") else list(domains)
    if inner == "runtime":
        return [*domains, GATEWAY] if rest == "runtime/grpc_client.py" else list(domains)
    return [inner]


def rounds(wanted: Sequence[Shot], at_once: int = 4) -> list[list[Shot]]:
    """Group all shots into rounds of at most `at_once` different parts; parts with the most shots left come first."""
    left: dict[str, list[Shot]] = {}
    for shot in wanted:
        left.setdefault(shot.part, []).append(shot)
    packed = []
    while left:
        busiest = sorted(left, key=lambda part: -len(left[part]))[:at_once]
        packed.append([left[part].pop(0) for part in busiest])
        left = {part: rest for part, rest in left.items() if rest}
    return packed
