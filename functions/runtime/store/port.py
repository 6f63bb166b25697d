"""The store port: entities, indexes, events and guards that commit together.

A domain declares `EntityMapping`s in its store.py and hands pure `change` functions to `Store.transact` or
`Store.update`. An adapter reads the entities named, calls `change`, and writes entities, index entries,
outbox rows and the guard (inbox mark or idempotency record) in one transaction, conditional on each
version; a lost race runs `change` again. One contract suite
(functions/runtime/tests/test_store_*.py) runs over every adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from events.catalog import Payload
from events.outbox import OutboxRow


class Entity(Protocol):
    """A dataclass with an id and the version that the store last wrote (0: not stored yet)."""

    id: str
    version: int


PAGE_BYTES = 1024 * 1024
"""Of one page's entities as stored, which is more than as a message: a quarter of what a caller takes (4 MiB)."""

E = TypeVar("E", bound=Entity)
R = TypeVar("R")


class IndexKey(NamedTuple):
    """One entry: `page(cls, index, partition)` lists the entities of a partition by `sort`, then id."""

    name: str
    partition: str
    sort: str


def _no_indexes(_: Any) -> Iterable[IndexKey]:
    return ()


def _never(_: Any) -> datetime | None:
    return None


@dataclass(frozen=True)
class EntityMapping(Generic[E]):
    """How one class of entities is kept.

    `name` goes into keys and never changes. `indexes` gives an entity's entries, several per index where
    wanted (words of a text). `expires_at` says from when on it is absent: no read gives it, a `change` gets None, and
    one made anew under its id starts afresh. `Store.expire` removes it some time later.
    """

    type: type[E]
    name: str
    indexes: Callable[[E], Iterable[IndexKey]] = _no_indexes
    expires_at: Callable[[E], datetime | None] = _never


class Ref(NamedTuple):
    """An entity by class and id."""

    type: type[Any]
    id: str


@dataclass(frozen=True)
class Page(Generic[E]):
    """One page, which may have fewer items than asked for; `next_cursor` is opaque, and None at the end."""

    items: list[E]
    next_cursor: str | None = None


@dataclass(frozen=True)
class IdempotencyRecord:
    """A guard that commits with the state, so that work is done once.

    `key` is unique in the domain's store. Without `answer` it is an inbox mark: a second transaction with
    it raises `AlreadyDone`. With `answer` (an entity class) it is an idempotency record: a second one with
    the same `fingerprint` gets the result of the first, decoded as that class, and `change` does not run;
    another fingerprint raises INVALID_ARGUMENT with reason IDEMPOTENCY_KEY_REUSED. It is forgotten after
    `ttl`.
    """

    key: str
    ttl: timedelta
    fingerprint: str = ""
    answer: type[Any] | None = None


class AlreadyDone(Exception):
    """The inbox mark is there: the effect was committed before. No error: the event door acknowledges it."""


@dataclass(frozen=True)
class Changes(Generic[R]):
    """What a `change` wants written; everything in `put` and `delete` must be among the refs it was given."""

    result: R
    put: Sequence[Entity] = ()
    delete: Sequence[Entity] = ()
    events: Sequence[Payload] = ()


class Store(Protocol):
    """Durable state of one domain. Every method raises UNAVAILABLE if the database is not reached in time.

    Entities handed out are the caller's own: changing one changes nothing in the store.
    """

    async def get(self, cls: type[E], entity_id: str) -> E | None:
        """The entity as last committed, or None."""

    async def get_many(self, cls: type[E], ids: Sequence[str]) -> dict[str, E]:
        """Those of `ids` that exist, by id."""

    async def page(
        self,
        cls: type[E],
        index: str,
        partition: str,
        *,
        limit: int,
        cursor: str | None = None,
        descending: bool = False,
        until: str | None = None,
        since: str | None = None,
    ) -> Page[E]:
        """Entities of one partition by sort key; `until` is an inclusive upper bound of it (for what is due), `since`
        an inclusive lower one, with the first page of an ascending list.

        A page ends at `limit` entities, or before the one with which their stored data would exceed PAGE_BYTES: then it
        fits into a message, however large they are. There is one entity at least, unless the list has ended.

        Raises INVALID_ARGUMENT with reason INVALID_CURSOR for a cursor that this listing never gave out.
        """

    async def update(
        self,
        cls: type[E],
        entity_id: str,
        change: Callable[[E | None], tuple[E, Sequence[Payload]]],
        *,
        idempotency: IdempotencyRecord | None = None,
    ) -> E:
        """Create or change one entity; returns it as committed (with its new version).

        `change` is pure: it gets a copy of its own (None when there is none), may raise ServiceError
        (nothing is then written), and may be called again when a race was lost.
        """

    async def transact(
        self,
        refs: Sequence[Ref],
        change: Callable[[Sequence[Any]], Changes[R]],
        *,
        idempotency: IdempotencyRecord | None = None,
    ) -> R:
        """The same for several entities at once: `change` gets them in `refs`' order, None where absent.

        A ref that is named twice stands for one and the same entity.
        """

    async def outbox(self, before: datetime, limit: int) -> list[OutboxRow]:
        """Rows not yet published that were written before `before`, oldest first."""

    async def outbox_published(self, ids: Sequence[str]) -> None:
        """Forget these rows: the broker has them."""

    async def outbox_state(self) -> tuple[int, datetime | None]:
        """How many rows wait, and when the oldest was written."""

    def on_commit(self, listener: Callable[[Sequence[OutboxRow]], None]) -> None:
        """Call `listener` (it must not block) with the rows of every commit, right after it."""

    async def expire(self, now: datetime, limit: int = 1000) -> int:
        """Remove entities and guards whose time is over; how many."""

    def request_purge(self) -> None:
        """What was just removed names a person: the next `expire` removes its traces from the store's files, too."""

    async def epoch(self) -> int:
        """Which life of the data this is: 0, or when a restore began it (milliseconds since 1970).

        Versions written in it are above it, so that no version, and no ETag, ever stands for two contents; cursors of
        another are refused. It stays the same as long as the store is open.
        """

    async def ping(self) -> None:
        """Prove that reads and writes would work; raises UNAVAILABLE."""

    async def close(self) -> None:
        """Finish what is under way and let go of files and connections."""
