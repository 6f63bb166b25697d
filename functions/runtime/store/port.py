"""The store port: entities, index entries, events and idempotency records that commit together.

A domain declares `EntityMapping`s in its store.py and passes pure `change` functions to `Store.transact` or
`Store.update`. The adapter reads the named entities, calls `change`, and writes entities, index entries, outbox rows
and the idempotency record in one transaction, which commits only if no version has changed. After a lost race the
adapter calls `change` again. One contract suite (functions/runtime/tests/test_store_*.py) tests every adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from events.catalog import Payload
from events.outbox import OutboxRow
from functions.runtime.errors import ServiceError, unavailable


class Entity(Protocol):
    """A dataclass with an id and the version that the store last wrote (0 if it is not stored yet)."""

    id: str
    version: int


PAGE_BYTES = 1024 * 1024
"""Maximum stored size of one page's entities. Messages are smaller, so a page is far below a client's 4 MiB limit."""

E = TypeVar("E", bound=Entity)
R = TypeVar("R")


class IndexKey(NamedTuple):
    """One index entry. `Store.page` lists the entities of a partition in the order of `sort`, then by id."""

    name: str
    partition: str
    sort: str


def _no_indexes(_: Any) -> Iterable[IndexKey]:
    return ()


def _never(_: Any) -> datetime | None:
    return None


@dataclass(frozen=True)
class EntityMapping(Generic[E]):
    """The rules by which one class of entities is stored.

    `name` is part of keys and must never change. `indexes` returns an entity's index entries; an entity may have
    several in one index (the words of a text). `expires_at` returns the time from which the entity counts as absent: no
    read returns it, `change` gets None, and a new entity with its id begins at version 1. `Store.expire` removes it
    later.
    """

    type: type[E]
    name: str
    indexes: Callable[[E], Iterable[IndexKey]] = _no_indexes
    expires_at: Callable[[E], datetime | None] = _never


class Ref(NamedTuple):
    """A reference to an entity by class and id."""

    type: type[Any]
    id: str


@dataclass(frozen=True)
class Page(Generic[E]):
    """One page of a list. It may have fewer items than the limit. `next_cursor` is opaque; the last page has None."""

    items: list[E]
    next_cursor: str | None = None


WORDS = "words"
"""The index for the words of texts.

A search for several terms, one of which is of this index, costs about the same in a store of any size if few entities
meet them all, because SQLite and PostgreSQL keep a second index of such entities, by which they intersect all terms.
"""


class Term(NamedTuple):
    """A condition of a search: an entity has an entry in one of these partitions of the index `name`."""

    name: str
    partitions: Sequence[str]


@dataclass(frozen=True)
class Matches(Generic[E]):
    """A part of a search's result. `below` is where the next part begins; the last part has None."""

    items: list[E]
    below: str | None = None


@dataclass(frozen=True)
class IdempotencyRecord:
    """A record that commits together with a transaction's effect, so that the effect happens once.

    `key` is unique in the domain's store. With `answer` (an entity class), a second transaction with the same key and
    `fingerprint` returns the result of the first, decoded as that class, without calling `change`. A second transaction
    with another fingerprint raises INVALID_ARGUMENT (IDEMPOTENCY_KEY_REUSED). Without `answer`, the record is an inbox
    record: a second transaction raises `AlreadyDone`. The record expires after `ttl`.
    """

    key: str
    ttl: timedelta
    fingerprint: str = ""
    answer: type[Any] | None = None


class AlreadyDone(Exception):
    """The inbox record exists: the event's effect was committed before. The event function acknowledges the event."""


def store_unavailable(message: str = "The store cannot be reached at the moment.") -> ServiceError:
    """Make the error for a database that does not answer, or for a closed store."""
    return unavailable("STORE_UNAVAILABLE", message)


@dataclass(frozen=True)
class Changes(Generic[R]):
    """The changes that a `change` function requests. Entities in `put` and `delete` must be among the refs."""

    result: R
    put: Sequence[Entity] = ()
    delete: Sequence[Entity] = ()
    events: Sequence[Payload] = ()


class Store(Protocol):
    """Durable state of one domain. Every method raises UNAVAILABLE if the database does not answer in time.

    Methods return copies of entities; a change to a copy does not change the store.
    """

    async def get(self, cls: type[E], entity_id: str) -> E | None:
        """Return the entity as last committed, or None."""

    async def get_many(self, cls: type[E], ids: Sequence[str]) -> dict[str, E]:
        """Return the entities that exist among `ids`, by id."""

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
        """Return entities of one partition in the order of their sort keys.

        `until` is an inclusive upper bound of the sort key, used to list entities that are due. `since` is an inclusive
        lower bound, for the first page of an ascending list. A page ends at `limit` entities, or before the entity with
        which the page's stored data would exceed PAGE_BYTES. It has at least one entity, unless the list has ended.
        Raises INVALID_ARGUMENT (INVALID_CURSOR) for a cursor that this list did not return.
        """

    async def search(
        self,
        cls: type[E],
        terms: Sequence[Term],
        *,
        limit: int,
        below: str | None = None,
        containing: Sequence[str] = (),
    ) -> Matches[E]:
        """Return entities that meet every term, in descending order of their sort keys.

        All entries of an entity in these indexes must have the same sort key, which must be unique. `below` is an
        exclusive upper bound of the sort key. Only entities whose JSON contains all strings of `containing` are
        returned.

        Returns at most `limit` entities; fewer, or none, if they would exceed PAGE_BYTES or if the search would take
        too long. The cost depends on the rarest term, whatever the order of the terms.
        """

    async def update(
        self,
        cls: type[E],
        entity_id: str,
        change: Callable[[E | None], tuple[E, Sequence[Payload]]],
        *,
        idempotency: IdempotencyRecord | None = None,
    ) -> E:
        """Create or change one entity. Returns the committed entity with its new version.

        `change` must be pure, because it is called again after a lost race. It gets a copy of the entity, or None. If
        it raises ServiceError, nothing is written.
        """

    async def transact(
        self,
        refs: Sequence[Ref],
        change: Callable[[Sequence[Any]], Changes[R]],
        *,
        idempotency: IdempotencyRecord | None = None,
        likely_new: bool = False,
    ) -> R:
        """Create or change several entities in one transaction. Returns the `result` of the changes.

        `change` must be pure as in `update`. It gets the entities in the order of `refs`, with None for an absent
        entity. Equal refs get the same copy. `likely_new` says that usually neither the entities nor the record exist.
        An adapter may then call `change` without reading them, and read them if the commit finds any.
        """

    async def outbox(self, before: datetime, limit: int) -> list[OutboxRow]:
        """Return unpublished rows that were written before `before`, oldest first."""

    async def outbox_published(self, ids: Sequence[str]) -> None:
        """Remove these rows after the broker has accepted them."""

    async def outbox_state(self) -> tuple[int, datetime | None]:
        """Return the number of unpublished rows, and when the oldest was written."""

    def on_commit(self, listener: Callable[[Sequence[OutboxRow]], None]) -> None:
        """Call `listener` with the outbox rows of each commit, right after the commit. It must not block."""

    async def expire(self, now: datetime, limit: int = 1000) -> int:
        """Remove up to `limit` expired entities and idempotency records. Returns their number."""

    def request_purge(self) -> None:
        """Make the next `expire` also erase the traces of removed data from the store's files."""

    async def epoch(self) -> int:
        """Return when the data were last restored, in milliseconds since 1970, or 0 if they never were.

        Every version written after the restore is greater than the epoch, so no version or ETag ever identifies two
        different contents. Cursors of another epoch are refused. The epoch does not change while the store is open.
        """

    async def ping(self) -> None:
        """Raise UNAVAILABLE unless the database answers."""

    async def close(self) -> None:
        """Finish the work in progress and release files and connections."""


class NotAvailable(Exception):
    """A database cannot run on this machine. The message says why."""
