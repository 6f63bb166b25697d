"""The names of a new service and of everything that belongs to it."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

LONGEST = 30
"""The maximum length of a service's name. Kubernetes allows 63 characters for names derived from a revision, such as
`name-events-00001-deployment-` and a suffix."""

RESERVED = frozenset(
    """
    admin all broker common console dashboard database deadletters default events functions gateway health istio
    knative kubernetes local message money name none observability other process proto public runtime service
    settings setup shop store sweep template test tests token
    """.split()  # noqa: SIM905 - forty names are read more easily as a text
)
"""Names of the platform's parts, and names that are easily confused with them."""

_NAME = re.compile(r"[a-z][a-z0-9]*")
_ENTITY = re.compile(r"[a-z][a-z0-9]*(_[a-z][a-z0-9]*)*")
# Names that the template's modules import or define.
_TAKEN_CLASSES = frozenset(
    """
    Any Changes Clock Code EntityMapping Function GrpcClient Handler IdempotencyRecord Identity InboxRecord
    IndexKey Iterable Manual Page Path Payload Ref RpcService Sequence ServiceRunner Settings Store Sweep
    Timestamp
    """.split()  # noqa: SIM905 - as above
)


class NameRefused(ValueError):
    """A service or entity cannot have this name. The message gives the reason and usually suggests another name."""


@dataclass(frozen=True)
class Names:
    """The names from which the template's variables are derived. `number` determines the local ports."""

    name: str
    entity: str
    prefix: str
    number: int

    def answers(self) -> dict[str, str | int]:
        """Return the template's variables."""
        words = self.entity.split("_")
        entity_class = "".join(word.capitalize() for word in words)
        return {
            "name": self.name,
            "NAME": self.name.upper(),
            "service": self.name.capitalize(),
            "entity": self.entity,
            "Entity": entity_class,
            "ENTITY": self.entity.upper(),
            "Words": " ".join(words).capitalize(),
            "event": f"{entity_class}Created",
            "event_type": f"shop.{'.'.join(words)}.created.v1",
            "prefix": self.prefix,
            "http_port": 8080 + self.number,
            "grpc_port": 9080 + self.number,
            "number": self.number,
        }


def checked_name(name: str) -> str:
    """Return the name if it is allowed for a service. Raises NameRefused."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        raise NameRefused(
            f"NAME={name}: use 1 to {LONGEST} lower-case letters and digits, a letter first, as in `inventory`. "
            "It names a Python package, a proto package and a Kubernetes service, so it can have neither - nor _."
        )
    if keyword.iskeyword(name) or name in RESERVED or name.endswith("events"):
        raise NameRefused(f"NAME={name}: that word is reserved; choose another, as in `inventory`.")
    return name


def entity_of(name: str) -> str:
    """Return the default entity of a service: the singular of its name, or `<name>_item`."""
    if name.endswith("ies") and len(name) > 4:
        return f"{name[:-3]}y"
    if name.endswith("s") and not name.endswith(("ss", "us", "is")) and len(name) > 4:
        return name[:-1]
    return f"{name}_item"


def checked_entity(entity: str, service: str, event_classes: frozenset[str]) -> str:
    """Return the entity if its name is valid and does not collide with other names or classes. Raises NameRefused."""
    if not _ENTITY.fullmatch(entity) or len(entity) > LONGEST or keyword.iskeyword(entity):
        raise NameRefused(f"ENTITY={entity}: use snake_case of at most {LONGEST} characters, as in `stock_item`.")
    made = "".join(word.capitalize() for word in entity.split("_"))
    if (
        made in _TAKEN_CLASSES
        or made in {f"{service.capitalize()}{suffix}" for suffix in ("", "Service", "Servicer")}
        or entity in {"name", "service", "store", "user"}
    ):
        raise NameRefused(f"ENTITY={entity}: that word means something else here; choose another.")
    if f"{made}Created" in event_classes:
        raise NameRefused(f"ENTITY={entity}: the catalogue has a {made}Created already; choose another.")
    return entity


def prefix_of(entity: str, root: Path) -> str:
    """Return an unused three-letter prefix for the entity's ids, given the services under `root`.

    Raises NameRefused.
    """
    used = set(_prefixes(root))
    letters = re.sub("[^a-z]", "", entity)
    for candidate in (*map("".join, combinations(letters, 3)), *map("".join, combinations("qxzjkvw", 3))):
        if candidate not in used:
            return candidate
    raise NameRefused(f"ENTITY={entity}: every prefix for its ids is taken; choose another.")


def _prefixes(root: Path) -> Iterator[str]:
    for path in root.glob("functions/*/*.py"):
        yield from re.findall(r'"([a-z]{3})(?:_"|"[,)])', path.read_text())
